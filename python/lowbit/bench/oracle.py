"""What a result is judged by: a float64 oracle, and plain torch in the precision of the mode.

The oracle of the weight is the value rule written apart from the reference, bit by bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lowbit import registry
from lowbit.formats.int8x2 import CHUNK
from lowbit.formats.numerics import BF16, DENSE, INT8X2, round_operand
from lowbit.formats.packing import PLANE_WIDTHS, plane_words
from lowbit.formats.weight_format import LAYOUTS, ZERO_KINDS, WeightFormat, dequantize_parts
from lowbit.ops.weight_only_linear import Arguments

# For each bit of the codes, the lowest first: row, word and bit of the word, over all codes.
Bits = Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a result is judged by: the oracle and what plain torch makes of the same call."""

    oracle: torch.Tensor  # float64, or the exact result for bitwise ops
    plain: torch.Tensor | None  # None for bitwise ops
    bits: torch.Tensor | None = None  # the result, where a mode fixes every bit of it
    any_nonfinite: bool = False  # where the oracle is infinite or NaN either will do


def expected(op: str, args: tuple) -> Expected:
    """The oracle of a call, and plain torch's result. Computed on the CPU."""
    return _EXPECTED[op](*(t.cpu() if isinstance(t, torch.Tensor) else t for t in args))


def oracle_weight(qweight, scales, zeros, table, s0, fmt: WeightFormat) -> torch.Tensor:
    """The value rule again, written apart from the reference: bit by bit and element by element.

    Each product or sum of two float32 numbers is computed in float64 and rounded to float32, which
    rounds once, as float64 has more than twice the digits.
    """
    codes = _gather(qweight, _BITS[fmt.layout](fmt))
    scale = _spread(scales, fmt)
    if s0 is not None:
        scale = (scale * s0.double().reshape(-1, 1)).float().double()
    t = (codes.float() if table is None else table[codes]).double()
    kind = ZERO_KINDS[fmt.zero_kind]
    zero = _spread(zeros, fmt) if zeros is not None else 2.0 ** (fmt.bits - 1)
    if kind in ("midpoint", "code"):
        t = (t - zero).float().double()
    w = (t * scale).float().double()
    return ((w + zero) if kind == "value" else w).float()


def _spread(scales: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """The scale or zero of each element, in float64."""
    row, group = torch.arange(fmt.n)[:, None], torch.arange(fmt.k)[None] // fmt.block_k
    if scales.dim() == 3:
        return scales.double()[row // 64, group, row % 64]
    return scales.double()[row // fmt.block_n, group]


def _canonical_bits(fmt: WeightFormat) -> Bits:
    """Where each bit of the codes [n, k] lies in a canonical weight."""
    row, column, start = torch.arange(fmt.n)[:, None], torch.arange(fmt.k)[None], 0
    for width, words in zip(PLANE_WIDTHS[fmt.bits], plane_words(fmt.bits, fmt.k), strict=True):
        for bit in range(width):
            position = column * width + bit
            yield row, start + position // 32, position % 32
        start += words


def _panel_bits(fmt: WeightFormat) -> Bits:
    """The same in panels, one column at a time from its group, unit, vector, field and byte."""
    row, column = torch.arange(fmt.n)[:, None], torch.arange(fmt.k)[None]
    unit_columns = 32 // min(PLANE_WIDTHS[fmt.bits])
    units_before = column // fmt.block_k * -(-fmt.block_k // unit_columns)
    unit = units_before + column % fmt.block_k // unit_columns
    in_unit = column % fmt.block_k % unit_columns
    start = unit * unit_columns * 64 * fmt.bits // 8  # in bytes
    for width in PLANE_WIDTHS[fmt.bits]:
        vector, rest = in_unit // (32 // width), in_unit % (32 // width)
        field, byte_of_quad = rest // 4, rest % 4
        byte = start + 256 * vector + row % 64 // 16 * 64 + row % 16 * 4 + byte_of_quad
        for bit in range(width):
            yield row // 64, byte // 4, byte % 4 * 8 + field * width + bit
        start = start + 256 * (unit_columns * width // 32)


def _fragment_bits(fmt: WeightFormat) -> Bits:
    """The same in fragments, from the lane, pair and element that hold a row and a column."""
    row, column = torch.arange(fmt.n)[:, None], torch.arange(fmt.k)[None]
    in_group = column % fmt.block_k
    unit = column // fmt.block_k * -(-fmt.block_k // 32) + in_group // 32
    lane = row % 32 // 4 * 4 + in_group % 8 // 2
    register = row % 2 + 2 * (in_group % 16 // 8)
    pair = 8 * (in_group % 32 // 16) + 4 * (row % 4 // 2) + register
    start = (2 * unit + row % 64 // 32) * 32 * fmt.bits
    for width in PLANE_WIDTHS[fmt.bits]:
        of_word = 16 // width
        word = start + lane * width + pair // of_word
        for bit in range(width):
            yield row // 64, word, pair % of_word * width + bit + 16 * (in_group % 2)
        start = start + 32 * width


# By the number of the layout.
_BITS = (_canonical_bits, _panel_bits, _fragment_bits)


def _gather(words: torch.Tensor, bits: Bits) -> torch.Tensor:
    """The codes whose bits, the lowest first, lie at (row, word, bit of the word)."""
    found = (words[row, word].long() >> shift & 1 for row, word, shift in bits)
    return sum(values << bit for bit, values in enumerate(found))


def _scatter(codes: torch.Tensor, bits: Bits, shape: tuple[int, int]) -> torch.Tensor:
    """Words with the codes' bits at their places, and zeros elsewhere."""
    words = torch.zeros(shape, dtype=torch.int64)
    for bit, (row, word, shift) in enumerate(bits):
        row, word, shift = torch.broadcast_tensors(row, word, shift)
        words.index_put_((row, word), ((codes >> bit) & 1) << shift, accumulate=True)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def _expected_prepack(qweight: torch.Tensor, numbers: tuple[int, ...], layout: int) -> Expected:
    fmt = WeightFormat(*numbers)
    codes = _gather(qweight, _canonical_bits(fmt))
    unit_columns = 32 if LAYOUTS[layout] == "fragments" else 32 // min(PLANE_WIDTHS[fmt.bits])
    groups = (min(fmt.block_k, fmt.k - start) for start in range(0, fmt.k, fmt.block_k))
    columns = sum(-(-group // unit_columns) * unit_columns for group in groups)
    shape = -(-fmt.n // 64), columns * fmt.bits * 64 // 32
    return Expected(_scatter(codes, _BITS[layout](fmt), shape), None)


def _expected_unpack(qweight: torch.Tensor, numbers: tuple[int, ...]) -> Expected:
    fmt = WeightFormat(*numbers)
    codes = _gather(qweight, _BITS[fmt.layout](fmt))
    shape = fmt.n, sum(plane_words(fmt.bits, fmt.k))
    return Expected(_scatter(codes, _canonical_bits(fmt), shape), None)


def _expected_dequantize(*args: Any) -> Expected:
    *tensors, fmt, dtype = args
    return Expected(oracle_weight(*tensors, WeightFormat(*fmt)).to(dtype), None)


def _expected_linear(*args: Any) -> Expected:
    a = Arguments(*args)
    tensors = list(args[1:6])
    if a.table is not None:
        tensors[3] = _table_of_mode(a.table, a.numerics)
    w = dequantize_parts(*tensors, WeightFormat(*a.format))
    true_w = w if a.numerics != INT8X2 else dequantize_parts(*args[1:6], WeightFormat(*a.format))
    if a.numerics == DENSE:
        w = w.to(a.x.dtype).float()
    x = a.x if a.permutation is None else a.x[..., a.permutation.long()]
    true_x, x = _x_of_mode(x, a.numerics, WeightFormat(*a.format))
    oracle = torch.matmul(true_x.double(), true_w.double().t())
    plain = torch.matmul(x, w.t())
    if a.low_rank_a is not None:
        pair = a.low_rank_a, a.low_rank_b
        oracle = oracle + _low_rank_term(*(t.double() for t in (a.x, *pair)))
        plain = plain + _low_rank_term(*(t.float() for t in (a.x, *pair)))
    if a.bias is not None:
        oracle, plain = oracle + a.bias.double(), plain + a.bias.float()
    fixed = a.numerics == INT8X2 and a.low_rank_a is None
    bits = _reference(args) if fixed else None
    # bf16 kernels multiply zeros apart from codes: inf - inf may come out. In dense the rounded
    # weight may be zero or infinite, which kernels that do not round it need not see.
    has_zeros = ZERO_KINDS[WeightFormat(*a.format).zero_kind] != "none"
    any_nonfinite = a.numerics == DENSE or (a.numerics == BF16 and has_zeros)
    return Expected(oracle, plain.to(a.x.dtype), bits, any_nonfinite)


def _low_rank_term(x, low_rank_a, low_rank_b) -> torch.Tensor:
    return torch.matmul(torch.matmul(x, low_rank_a.t()), low_rank_b.t())


def _reference(args: tuple) -> torch.Tensor:
    with registry.use_backend("reference"):
        return registry.OPS["weight_only_linear"].overload(*args)


def _x_of_mode(x: torch.Tensor, mode: int, fmt: WeightFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """(x of the oracle, x of plain torch), both float32.

    bf16 and fp16 round x by their definition, so the oracle has the rounded x. The rounding of
    int8x2 is an error of the mode: only plain torch has it, and the bound is twice that error. So
    it is with the weight in dense.
    """
    if mode != INT8X2:
        x = round_operand(x, mode)
        return x, x
    broken = ~torch.isfinite(x).all(-1, keepdim=True)  # by definition the whole row is NaN
    x = torch.where(broken, math.nan, x.float())
    pieces = [p for g in x.split(fmt.block_k, -1) for p in g.split(CHUNK, -1)]
    steps = [piece.abs().amax(-1, keepdim=True) / 16256 for piece in pieces]
    rounded = [
        torch.where(step > 0, torch.round(piece / step) * step, piece)
        for piece, step in zip(pieces, steps, strict=True)
    ]
    return x, torch.cat(rounded, -1)


def _table_of_mode(table: torch.Tensor, mode: int) -> torch.Tensor:
    """The table as the mode reads it: rounded where the mode cannot hold it."""
    if mode != INT8X2:
        return round_operand(table, mode)
    step = table.abs().max() / 16256
    return torch.round(table / step) * step if step > 0 else table


def _expected_backward(grad, qweight, scales, zeros, table, s0, fmt) -> Expected:
    w = dequantize_parts(qweight, scales, zeros, table, s0, WeightFormat(*fmt))
    plain = torch.matmul(grad.float(), w)
    return Expected(torch.matmul(grad.double(), w.double()), plain.to(grad.dtype))


_EXPECTED: dict[str, Callable[..., Expected]] = {
    "dequantize_weight": _expected_dequantize,
    "prepack_weight": _expected_prepack,
    "unpack_weight": _expected_unpack,
    "weight_only_linear": _expected_linear,
    "weight_only_linear_backward": _expected_backward,
}
