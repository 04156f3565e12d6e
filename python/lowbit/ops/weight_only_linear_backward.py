"""weight_only_linear_backward: the gradient of x, grad_x = grad @ dequantize(weight)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.errors import refuse, require_device, require_dtype
from lowbit.formats.layouts import canonical_parts
from lowbit.formats.numerics import matmul_float32
from lowbit.formats.weight_format import (
    EVERY_WEIGHT,
    SCHEMA,
    WeightFormat,
    check_weight,
    dequantize_parts,
    read_format,
    weight_kind,
)

NAME = "weight_only_linear_backward"
GRAD_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INPUTS = f"Tensor grad, {SCHEMA}, int[] format"
# Rows of the weight that are dequantized at a time: bounds the memory.
_ROWS = 512


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    dtype: torch.dtype
    element: str
    zeros: str
    scales: torch.dtype
    layout: str


def problem(grad, qweight, scales, zeros, table, s0, format) -> Problem:
    return Problem(grad.device, grad.dtype, *weight_kind(scales, table, format))


def check(grad, qweight, scales, zeros, table, s0, format) -> None:
    fmt = read_format(NAME, format)
    check_weight(NAME, qweight, scales, zeros, table, s0, fmt)
    require_dtype(NAME, "grad", grad.dtype, GRAD_DTYPES)
    require_device(NAME, "grad", grad, qweight.device)
    if grad.dim() < 1 or grad.shape[-1] != fmt.n:
        refuse(NAME, "grad", f"have shape [..., {fmt.n}]", list(grad.shape))


def allocate(grad, qweight, scales, zeros, table, s0, format) -> torch.Tensor:
    return grad.new_empty((*grad.shape[:-1], format[3]))


def reference(grad, qweight, scales, zeros, table, s0, format, out) -> None:
    tensors = qweight, scales, zeros, table, s0
    tensors, fmt = canonical_parts(tensors, WeightFormat(*format))
    total = grad.new_zeros(out.shape, dtype=torch.float32)
    for start, stop in _runs(fmt):
        w = _dequantize_rows(tensors, fmt, start, stop)
        total += matmul_float32(grad[..., start:stop].float(), w)
    out.copy_(total)


def _runs(fmt: WeightFormat) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) that are whole scale blocks, or a part of one where blocks are tall."""
    step = max(_ROWS // fmt.block_n, 1) * fmt.block_n
    for block in range(0, fmt.n, step):
        end = min(block + step, fmt.n)
        for start in range(block, end, _ROWS):
            yield start, min(start + _ROWS, end)


def _dequantize_rows(tensors, fmt: WeightFormat, start: int, stop: int) -> torch.Tensor:
    qweight, scales, zeros, table, s0 = tensors
    blocks = slice(start // fmt.block_n, -(-stop // fmt.block_n))
    return dequantize_parts(
        qweight[start:stop],
        scales[blocks],
        None if zeros is None else zeros[blocks],
        table,
        s0 if s0 is None or s0.dim() == 0 else s0[start:stop],
        fmt._replace(n=stop - start),
    )


OP = registry.Op(NAME, INPUTS, check=check, allocate=allocate, reference=reference, problem=problem)
OP.add_kernel(
    registry.Kernel(
        "cpu",
        {"dtype": GRAD_DTYPES, **EVERY_WEIGHT, "layout": ("canonical", "panels")},
        "measured on Intel Xeon (AVX-512)",
    )
)
_backward = OP.overload


def weight_only_linear_backward(grad, tensors, fmt: WeightFormat) -> torch.Tensor:
    """grad_x[..., K] from grad[..., N], in grad's dtype, with float32 sums."""
    return _backward(grad, *tensors, fmt)
