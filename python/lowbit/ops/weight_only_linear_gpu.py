"""weight_only_linear on a GPU: the CUDA or Triton kernel, torch's library for many rows."""

import torch

from lowbit.formats.matmul import low_rank_term
from lowbit.formats.numerics import DENSE, EXACT, operand_dtype, round_operand
from lowbit.ops.dense_chunks import LIBRARY_ROWS, multiply_chunks
from lowbit.ops.unpack_weight import unpack_parts
from lowbit.ops.weight_only_linear_cuda import multiply_fragments

# What the CUDA kernel has instances for.
CUDA_ELEMENTS = ("uint2", "uint3", "uint4", "uint8", "table4")


def multiply_by_cuda(a, out: torch.Tensor) -> None:
    """The op's arguments `a`, with x [m, k] and a weight in fragments, into out [m, n]."""
    if _is_for_library(a):
        multiply_chunks(a.x, a[1:6], a.permutation, a.bias, a.format, out)
        return
    addend = _low_rank_addend(a)
    multiply_fragments(a.x, a[1:6], a.permutation, a.bias, addend, a.format, a.numerics, out)


def multiply_by_triton(a, out: torch.Tensor) -> None:
    """The same for a canonical weight; one in fragments is unpacked for the call."""
    if _is_for_library(a):
        multiply_chunks(a.x, a[1:6], a.permutation, a.bias, a.format, out)
        return
    from lowbit.triton_kernels.weight_only_linear import weight_only_linear as launch

    (qweight, scales, zeros, table, s0), fmt = unpack_parts(a[1:6], a.format)
    operand = operand_dtype(a.numerics, a.x.dtype, table is not None)
    x = a.x if a.numerics in (EXACT, DENSE) else a.x.to(operand)
    launch(
        x if x.stride(1) == 1 else x.contiguous(),
        qweight,
        scales,
        zeros,
        None if table is None else round_operand(table, a.numerics),
        s0,
        a.permutation,
        None if a.bias is None else a.bias.contiguous(),
        _low_rank_addend(a),
        out,
        bits=fmt.bits,
        block_n=fmt.block_n,
        block_k=fmt.block_k,
        zero_kind=fmt.zero_kind,
        operand=operand,
        may_round=a.numerics == DENSE,
    )


def _is_for_library(a) -> bool:
    """Whether the weight is made dense, in chunks, and multiplied by torch."""
    same = a.low_rank_a is None and (a.bias is None or a.bias.dtype == a.x.dtype)
    return a.numerics == DENSE and same and len(a.x) > LIBRARY_ROWS


def _low_rank_addend(a) -> torch.Tensor | None:
    return None if a.low_rank_a is None else low_rank_term(a.x, a.low_rank_a, a.low_rank_b)
