"""torch's dynamic int8 linear: weights in int8 per channel, activations in uint8 per tensor."""

from __future__ import annotations

import warnings

import torch

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload

NAME = "torch int8 dynamic"
OPS = (LINEAR,)
_ENGINES = ("onednn", "x86", "fbgemm")


def _engine() -> str | None:
    supported = torch.backends.quantized.supported_engines
    return next((engine for engine in _ENGINES if engine in supported), None)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    if workload.x.device.type != "cpu":
        return "it runs on cpu"
    if _engine() is None:
        return f"this torch has none of {', '.join(_ENGINES)}"
    return None


def prepare(workload: Workload) -> Entry:
    """The float weight in int8, each row scaled by its largest value."""
    quantized, x = _quantized(workload.layer.original), workload.x.float()

    def another():
        return (_packed(quantized),)

    operands = another()
    weight, _ = torch.ops.quantized.linear_unpack(*operands)
    n, k = weight.shape
    return Entry(
        NAME,
        lambda packed: torch.ops.quantized.linear_dynamic(x, packed, False),
        operands,
        weight.dequantize(),
        another=another,
        nbytes=n * (k + 4 + 4),  # a float32 scale and an int32 sum of the codes for each row
        arithmetic="int8",
    )


def _quantized(original: torch.Tensor) -> torch.Tensor:
    scales = original.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():  # torch has announced the end of quantized dtypes
        warnings.simplefilter("ignore", UserWarning)
        return torch.quantize_per_channel(original, scales, zeros, 0, torch.qint8)


def _packed(quantized: torch.Tensor):
    """The weight as the engine wants it; its products stay with that engine."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = _engine()
    try:
        return torch.ops.quantized.linear_prepack(quantized, None)
    finally:
        torch.backends.quantized.engine = before
