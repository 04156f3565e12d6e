"""weight_only_linear_backward: the gradient of x, grad_x = grad @ dequantize(weight)."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.errors import refuse, require_device, require_dtype
from lowbit.formats.layouts import canonical_parts
from lowbit.formats.numerics import matmul_float32
from lowbit.formats.weight_format import (
    SCHEMA,
    WeightFormat,
    check_weight,
    dequantize_parts,
    read_format,
)

NAME = "weight_only_linear_backward"
GRAD_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INPUTS = f"Tensor grad, {SCHEMA}, int[] format"
# Rows of the weight that are dequantized at a time, but whole scale blocks: bounds the memory.
_ROWS = 512


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    dtype: torch.dtype


def problem(grad, qweight, scales, zeros, table, s0, format) -> Problem:
    return Problem(grad.device, grad.dtype)


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
    (qweight, scales, zeros, table, s0), fmt = canonical_parts(tensors, WeightFormat(*format))
    rows = -(-_ROWS // fmt.block_n) * fmt.block_n
    total = grad.new_zeros(out.shape, dtype=torch.float32)
    for start in range(0, fmt.n, rows):
        stop = min(start + rows, fmt.n)
        blocks = slice(start // fmt.block_n, -(-stop // fmt.block_n))
        w = dequantize_parts(
            qweight[start:stop],
            scales[blocks],
            None if zeros is None else zeros[blocks],
            table,
            s0 if s0 is None or s0.dim() == 0 else s0[start:stop],
            fmt._replace(n=stop - start),
        )
        total += matmul_float32(grad[..., start:stop].float(), w)
    out.copy_(total)


OP = registry.Op(NAME, INPUTS, check=check, allocate=allocate, reference=reference, problem=problem)
_backward = OP.overload


def weight_only_linear_backward(grad, tensors, fmt: WeightFormat) -> torch.Tensor:
    """grad_x[..., K] from grad[..., N], in grad's dtype, with float32 sums."""
    return _backward(grad, *tensors, fmt)
