"""lowbit: low-bit kernels for PyTorch.

Low-bit matmul as torch ops, with hand-written CUDA and CPU SIMD kernels behind one contract each,
and a pure-PyTorch reference beside them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lowbit import native
from lowbit._version import __version__
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.weights import QuantizedWeight
from lowbit.ops.dequantize_weight import dequantize_weight
from lowbit.ops.prepack_weight import prepack
from lowbit.ops.unpack_weight import unpack
from lowbit.ops.weight_only_linear import weight_only_linear
from lowbit.registry import SlowPathWarning, explain, use_backend

if TYPE_CHECKING:
    from lowbit import nn
    from lowbit.nn import quantize_model

native.libraries()  # after the ops: their schemas are what the libraries register kernels for

__all__ = [
    "QuantizedWeight",
    "SlowPathWarning",
    "__version__",
    "dequantize_weight",
    "explain",
    "nn",
    "prepack",
    "quantize_model",
    "quantize_weight",
    "unpack",
    "use_backend",
    "weight_only_linear",
]


def __getattr__(name: str) -> Any:
    """lowbit.nn is loaded on first use: programs that call ops alone start sooner."""
    if name not in ("nn", "quantize_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = importlib.import_module("lowbit.nn")  # which binds the name nn here
    return modules if name == "nn" else modules.quantize_model


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
