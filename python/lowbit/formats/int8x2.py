"""The numeric mode int8x2 in plain torch: what every kernel of the mode equals bit for bit.

x is rounded to 15-bit integers with one scale for a row and a chunk of columns; they are two int8
numbers each, so that two int8 products make one of twice the digits. Integer sums are exact, and
each chunk is added by one fused multiply-add (docs/numerics.md).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lowbit.formats.numerics import fma, matmul_float32
from lowbit.formats.weight_format import ZERO_KINDS, WeightFormat, row_scales, unpack_weight_codes

CHUNK = 128
_LARGEST = 16256.0  # 127 * 128: the largest integer whose two halves are int8
_VANISHING = 2.0**-100  # a chunk, or a table, whose largest magnitude is less counts as zero
_TABLE_EXPONENTS = range(-16, 17)
_PRODUCT_ELEMENTS = 1 << 22


class Plane(NamedTuple):
    """Small integers that stand for codes, and the factor of their sums: [N, G]."""

    levels: torch.Tensor | None  # [2**bits] float32; None: the code itself
    offset: torch.Tensor | None  # [N, G] float32 integers taken from the code; None: nothing
    factor: torch.Tensor


def matmul_int8x2(
    x: torch.Tensor, tensors: tuple[torch.Tensor | None, ...], fmt: WeightFormat
) -> torch.Tensor:
    """float32 [..., N]: x[..., K] times the transposed weight, in the mode int8x2.

    x: any float dtype. tensors: (qweight, scales, zeros, table, s0) in any layout. The weight is
    held as uint8 codes [N, K] besides temporaries of a chunk.
    """
    codes = unpack_weight_codes(tensors[0], fmt)
    planes, remainder = _planes_and_remainder(*tensors[1:], fmt)
    rows = x.reshape(-1, fmt.k)
    out = x.new_empty((len(rows), fmt.n), dtype=torch.float32)
    step = max(1, _PRODUCT_ELEMENTS // max(1, fmt.n))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].float()
        out[start : start + step] = _matmul_rows(block, codes, planes, remainder, fmt)
    return out.reshape(*x.shape[:-1], fmt.n)


def chunks(fmt: WeightFormat) -> Iterator[tuple[int, int, int]]:
    """(first column, column behind the last, group) of each chunk: at most CHUNK columns."""
    for group in range(fmt.scale_shape[1]):
        stop = min((group + 1) * fmt.block_k, fmt.k)
        for start in range(group * fmt.block_k, stop, CHUNK):
            yield start, min(start + CHUNK, stop), group


def quantize_chunk(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale [M, 1], integers [M, columns]) of x[M, columns], all float32; |integer| <= 16256.

    A row with NaN or infinity gets the scale NaN and zeros.
    """
    largest = x.abs().amax(1, keepdim=True)
    finite = torch.isfinite(largest)
    counts = finite & (largest >= _VANISHING)
    safe, top = torch.where(counts, largest, 1.0), _top_like(largest)
    integers = torch.round(x * (top / safe))
    scale = torch.where(counts, largest / top, torch.where(finite, 0.0, math.nan))
    return scale, torch.where(counts, integers, 0.0)


def _top_like(values: torch.Tensor) -> torch.Tensor:
    """_LARGEST as a tensor: torch may divide by and into a number with a reciprocal, rounded."""
    return torch.full_like(values, _LARGEST)


def _matmul_rows(x, codes, planes, remainder, fmt: WeightFormat) -> torch.Tensor:
    total = x.new_zeros(len(x), fmt.n)
    for start, stop, group in chunks(fmt):
        scale, integers = quantize_chunk(x[:, start:stop])
        for plane in planes:
            sums = _integer_product(integers, _small_integers(plane, codes[:, start:stop], group))
            total = fma(sums.float() * scale, plane.factor[:, group], total)
        if remainder is not None:
            sums = integers.sum(1, keepdim=True)  # below 2**24: exact in any order
            total = fma(sums * scale, remainder[:, group], total)
    return total


def _small_integers(plane: Plane, codes: torch.Tensor, group: int) -> torch.Tensor:
    values = codes.float() if plane.levels is None else plane.levels[codes.int()]
    return values if plane.offset is None else values - plane.offset[:, group, None]


def _integer_product(integers: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """integers @ weights.T exactly, in int32: each half's float32 sums stay below 2**24."""
    high = torch.floor((integers + 64.0) / 128.0)
    halves = (high, integers - 128.0 * high)
    high, low = (matmul_float32(half, weights.t()).int() for half in halves)
    return 128 * high + low


def _planes_and_remainder(scales, zeros, table, s0, fmt: WeightFormat):
    """([Plane, ...], what a column adds for each unit of x: [N, G] or None)."""
    factor = row_scales(scales, fmt)
    if s0 is not None:
        factor = factor * s0.reshape(-1, 1)
    zero = None if zeros is None else row_scales(zeros, fmt)
    if table is not None:
        return _table_planes(table, factor), _table_remainder(factor, zero, fmt)
    kind = ZERO_KINDS[fmt.zero_kind]
    middle = torch.full_like(factor, 2.0 ** (fmt.bits - 1))
    if kind == "none":
        return [Plane(None, None, factor)], None
    if kind == "midpoint":
        return [Plane(None, middle, factor)], None
    if kind == "value":
        return [Plane(None, middle, factor)], factor * middle + zero
    if zeros.dtype == torch.uint8:
        return [Plane(None, zero, factor)], None
    nearest = torch.round(zero).nan_to_num(0.0).clamp(0.0, 255.0)
    return [Plane(None, nearest, factor)], factor * (nearest - zero)


def _table_remainder(factor, zero, fmt: WeightFormat) -> torch.Tensor | None:
    kind = ZERO_KINDS[fmt.zero_kind]
    if kind == "none":
        return None
    if kind == "value":
        return zero
    return factor * (0.0 - (2.0 ** (fmt.bits - 1) if kind == "midpoint" else zero))


def _table_planes(table: torch.Tensor, factor: torch.Tensor) -> list[Plane]:
    """One plane of int8 levels where a power of two makes the table integral, else two."""
    for exponent in _TABLE_EXPONENTS:
        levels = table * 2.0**exponent
        if ((levels == torch.round(levels)) & (levels.abs() <= 127)).all():
            return [Plane(levels, None, factor * 2.0**-exponent)]
    largest = table.abs().max()
    if not torch.isfinite(largest):
        broken = torch.full_like(factor, math.nan)
        return [Plane(torch.zeros_like(table), None, broken)]
    step = largest / _top_like(largest)
    levels = torch.round(table / step) if largest >= _VANISHING else torch.zeros_like(table)
    high = torch.floor((levels + 64.0) / 128.0)
    low = levels - 128.0 * high
    return [Plane(high, None, factor * (128.0 * step)), Plane(low, None, factor * step)]
