"""dequantize_weight: a quantized weight as an ordinary matrix, bit for bit by the value rule."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.errors import require_dtype, require_result
from lowbit.formats.weight_format import (
    CANONICAL,
    EVERY_CANONICAL_WEIGHT,
    LAYOUTS,
    SCHEMA,
    WeightFormat,
    check_weight,
    dequantize_parts,
    logical_columns,
    read_format,
    require_layout,
    weight_kind,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized
from lowbit.ops.unpack_weight import unpack

NAME = "dequantize_weight"
OUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INPUTS = f"{SCHEMA}, int[] format, ScalarType dtype"


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    dtype: torch.dtype
    element: str
    zeros: str
    scales: torch.dtype
    layout: str


def problem(qweight, scales, zeros, table, s0, format, dtype) -> Problem:
    return Problem(qweight.device, dtype, *weight_kind(scales, table, format))


def check(qweight, scales, zeros, table, s0, format, dtype) -> None:
    check_weight(NAME, qweight, scales, zeros, table, s0, read_format(NAME, format))
    require_dtype(NAME, "dtype", dtype, OUT_DTYPES)


def allocate(qweight, scales, zeros, table, s0, format, dtype) -> torch.Tensor:
    return qweight.new_empty((format[2], format[3]), dtype=dtype)


def reference(qweight, scales, zeros, table, s0, format, dtype, out) -> None:
    out.copy_(dequantize_parts(qweight, scales, zeros, table, s0, WeightFormat(*format)))


def run_triton(qweight, scales, zeros, table, s0, format, dtype, out) -> None:
    """The Triton kernel, on a call that may come from anywhere."""
    check(qweight, scales, zeros, table, s0, format, dtype)
    fmt = WeightFormat(*format)
    require_layout(NAME, fmt, LAYOUTS[CANONICAL])
    require_result(NAME, out, dtype, (fmt.n, fmt.k), qweight.device)
    from lowbit.triton_kernels.dequantize_weight import dequantize_weight as launch

    numbers = {"block_n": fmt.block_n, "block_k": fmt.block_k, "zero_kind": fmt.zero_kind}
    launch(qweight, scales, zeros, table, s0, out, bits=fmt.bits, **numbers)


def flatten(qweight: QuantizedWeight, dtype: torch.dtype | None = None) -> tuple:
    require_quantized(NAME, "qweight", qweight)
    canonical = unpack(qweight)
    args = (*canonical.tensors, canonical.format, dtype or torch.float32)
    check(*args)
    return args


OP = registry.Op(
    NAME,
    INPUTS,
    check=check,
    allocate=allocate,
    reference=reference,
    problem=problem,
    flatten=flatten,
)
_COVERS = {"dtype": OUT_DTYPES, **EVERY_CANONICAL_WEIGHT}
OP.add_kernel(registry.Kernel("cpu", _COVERS, "measured on Intel Xeon (AVX-512)"))
OP.add_kernel(registry.Kernel("cuda", _COVERS, "modelled, compiled"))
OP.add_kernel(registry.Kernel("triton", _COVERS, "modelled, compiled", run=run_triton))
_dequantize = OP.overload


def dequantize_weight(qweight: QuantizedWeight, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The matrix [N, K] that the weight stands for, in float32 or rounded once to `dtype`.

    dtype: float32 (the default), float16 or bfloat16. Every backend gives the same bits. A weight
    in panels or fragments is unpacked first, and the columns of a permuted one are put in their
    logical order.
    Raises TypeError for another dtype or something that is not a QuantizedWeight.
    """
    return logical_columns(_dequantize(*flatten(qweight, dtype)), qweight.permutation)
