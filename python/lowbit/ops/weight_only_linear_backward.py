"""weight_only_linear_backward: the gradient of x, grad_x = grad @ dequantize(weight)."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.errors import refuse, require_device, require_dtype, require_result
from lowbit.formats.layouts import canonical_parts
from lowbit.formats.numerics import matmul_float32
from lowbit.formats.weight_format import (
    CANONICAL,
    EVERY_WEIGHT,
    FRAGMENTS,
    LAYOUTS,
    SCHEMA,
    WeightFormat,
    check_weight,
    dequantize_parts,
    read_format,
    require_layout,
    weight_kind,
)
from lowbit.ops.dense_chunks import dense_chunks, row_runs, weight_rows

NAME = "weight_only_linear_backward"
GRAD_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INPUTS = f"Tensor grad, {SCHEMA}, int[] format"
# Rows of the weight that the reference dequantizes at a time: bounds the memory.
_ROWS = 512
_GPU_LAYOUTS = (LAYOUTS[CANONICAL], LAYOUTS[FRAGMENTS])


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
    for start, stop in row_runs(fmt, _ROWS):
        chunk, chunk_format = weight_rows(tensors, fmt, start, stop)
        w = dequantize_parts(*chunk, chunk_format)
        total += matmul_float32(grad[..., start:stop].float(), w)
    out.copy_(total)


def run_on_gpu(grad, qweight, scales, zeros, table, s0, format, out) -> None:
    """Chunks of the weight from the op dequantize_weight, multiplied by torch's library."""
    check(grad, qweight, scales, zeros, table, s0, format)
    fmt = WeightFormat(*format)
    require_layout(NAME, fmt, *_GPU_LAYOUTS)
    require_result(NAME, out, grad.dtype, (*grad.shape[:-1], fmt.k), grad.device)
    with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
        total = grad.new_zeros(out.shape, dtype=torch.float32)
        for rows, w in dense_chunks((qweight, scales, zeros, table, s0), fmt, torch.float32):
            total += matmul_float32(grad[..., rows].float(), w)
        out.copy_(total)


OP = registry.Op(NAME, INPUTS, check=check, allocate=allocate, reference=reference, problem=problem)
OP.add_kernel(
    registry.Kernel(
        "cpu",
        {"dtype": GRAD_DTYPES, **EVERY_WEIGHT, "layout": ("panels", "canonical")},
        "measured on Intel Xeon (AVX-512)",
    )
)
# The op dequantize_weight is the kernel; with either of these it is the fastest one that there is.
for _backend in ("cuda", "triton"):
    OP.add_kernel(
        registry.Kernel(
            _backend,
            {"dtype": GRAD_DTYPES, **EVERY_WEIGHT, "layout": _GPU_LAYOUTS},
            "modelled, compiled",
            run=run_on_gpu,
        )
    )
_backward = OP.overload


def weight_only_linear_backward(grad, tensors, fmt: WeightFormat) -> torch.Tensor:
    """grad_x[..., K] from grad[..., N], in grad's dtype, with float32 sums."""
    return _backward(grad, *tensors, fmt)
