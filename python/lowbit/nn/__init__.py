"""Modules with quantized weights, and the replacement of the linears of a model by them."""

from lowbit.nn.linear import QuantLinear
from lowbit.nn.report import QuantizationReport, QuantizedLayer
from lowbit.nn.surgery import quantize_model

__all__ = ["QuantLinear", "QuantizationReport", "QuantizedLayer", "quantize_model"]
