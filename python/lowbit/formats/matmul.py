"""x times a quantized weight in each numeric mode: the meaning of weight_only_linear."""

import torch

from lowbit.formats.int8x2 import matmul_int8x2
from lowbit.formats.numerics import DENSE, INT8X2, matmul_float32, round_operand
from lowbit.formats.weight_format import WeightFormat, dequantize_parts


def matmul_in_mode(
    x: torch.Tensor,
    tensors: tuple[torch.Tensor | None, ...],
    fmt: WeightFormat,
    mode: int,
    permutation: torch.Tensor | None = None,
) -> torch.Tensor:
    """float32 [..., N]: x[..., K] times the transposed weight, not yet rounded to x's dtype.

    tensors: (qweight, scales, zeros, table, s0) in any layout. mode: an index into MODES.
    permutation: int32[K] or None; stored column j multiplies x[..., permutation[j]].
    """
    if permutation is not None:
        x = x.index_select(-1, permutation)
    if mode == INT8X2:
        return matmul_int8x2(x, tensors, fmt)
    qweight, scales, zeros, table, s0 = tensors
    if table is not None:
        table = round_operand(table, mode)
    w = dequantize_parts(qweight, scales, zeros, table, s0, fmt)
    if mode == DENSE:
        w = w.to(x.dtype).float()
    return matmul_float32(round_operand(x, mode), w.t())


def low_rank_term(x: torch.Tensor, low_rank_a: torch.Tensor, low_rank_b: torch.Tensor):
    """(x @ A.T) @ B.T in float32."""
    inner = matmul_float32(x.float(), low_rank_a.float().t())
    return matmul_float32(inner, low_rank_b.float().t())
