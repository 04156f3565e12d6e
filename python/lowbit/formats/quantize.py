"""quantize_weight: round-to-nearest weight quantization, optionally with a clipping search.

The scale that is stored (rounded to its dtype) is the one the codes are made with, so the error of
the stored scale is not added to the error of the codes.
"""

from collections.abc import Iterator

import torch

from lowbit.errors import dtype_name, refuse, require_dtype, require_integer, require_tensor
from lowbit.formats.packing import PLANE_WIDTHS, pack_codes
from lowbit.formats.quantization_rules import TableRule, integer_rule, sum_columns
from lowbit.formats.tables import TABLE_NAMES, element_table
from lowbit.formats.weight_format import (
    FORMAT_VERSION,
    SCALE_DTYPES,
    TABLE_BITS,
    ZERO_KINDS,
    WeightFormat,
)
from lowbit.formats.weights import QuantizedWeight

_OP = "quantize_weight"
_E4M3_MAX = 448.0
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SEARCHES = ("none", "mse")
# Shrink factors of the clipping search. Below a third of the range no bell-shaped group gains.
_SHRINKS = tuple(1.0 - i / 40 for i in range(28))
# Rows are quantized a block at a time: the search holds about ten float32 copies of a block.
_BLOCK_ELEMENTS = 1 << 22


def quantize_weight(
    w: torch.Tensor,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    element: str | torch.Tensor = "uint",
    scale_dtype: torch.dtype | None = None,
    search: str = "none",
) -> QuantizedWeight:
    """Quantize w[N, K] (float32, float16, bfloat16 or float64) to codes of 1 to 8 bits.

    group_size: columns that share a scale; -1 is one group a row. It need not divide K.
    element: "uint" (affine integers), "nf4", "e2m1", "e3m0", "e1m2", or a table float[2**bits] of
        your own (1 to 4 bits; scaled so that its largest magnitude meets the group's).
    symmetric: for "uint" only. False: the group's range with zero included, an integer zero point
        stored as uint8. True: the zero point is 2**(bits-1), not stored, and the scale is
        max(max w / (2**(bits-1) - 1), -min w / 2**(bits-1)). One bit has rules of its own:
        +-mean|w| (symmetric), or mean +- mean|w - mean| with a value-domain zero.
    scale_dtype: float32, float16, bfloat16, float8_e4m3fn (with a second-level scale for the
        tensor) or float8_e8m0fnu (rounded up to a power of two, so nothing clips). None: bfloat16
        for bfloat16 weights, else float16.
    search: "mse" tries the full range of a group and 27 narrower ones, and keeps the one of least
        squared error; it takes about that many times as long.

    Raises ValueError for NaN or infinite weights and for scales beyond scale_dtype, TypeError for
    a wrong dtype. Rounding is half to even. A group of zeros gets the scale 1.
    """
    table, settings = _settings(w, bits, group_size, symmetric, element, scale_dtype, search)
    group, rule, _, s0 = settings
    blocks = [_quantize_rows(rows, bits, settings, search) for rows in _row_blocks(w)]
    qweight, scales, zeros = (
        None if parts[0] is None else torch.cat(parts) for parts in zip(*blocks, strict=True)
    )
    kind = ZERO_KINDS.index(rule.zero_kind)
    fmt = WeightFormat(FORMAT_VERSION, bits, *w.shape, 1, group, kind)
    return QuantizedWeight(qweight, scales, zeros, table, s0, fmt)


def check_quantizable(
    w: torch.Tensor,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    element: str | torch.Tensor = "uint",
    scale_dtype: torch.dtype | None = None,
    search: str = "none",
) -> None:
    """Raise what quantize_weight with these arguments would raise, without making the codes."""
    _, settings = _settings(w, bits, group_size, symmetric, element, scale_dtype, search)
    group, rule, scale_dtype, s0 = settings
    for rows in _row_blocks(w):
        groups, valid = _in_groups(rows.float(), group)
        _, factor = _store_scales(rule.scale(groups, valid), scale_dtype, s0)
        _store_zeros(rule, rule.zeros(groups, valid, factor.unsqueeze(-1), 1.0), rows)


def _settings(w, bits, group_size, symmetric, element, scale_dtype, search):
    """(table, (columns of a group, rule, scale dtype, s0)), all checked."""
    table = _check_arguments(w, bits, group_size, element, search)
    scale_dtype = _resolve_scale_dtype(w, scale_dtype)
    group = w.shape[1] if group_size == -1 else min(group_size, w.shape[1])
    rule = TableRule(table) if table is not None else integer_rule(bits, symmetric)
    s0 = _second_level(w.detach(), group, rule) if scale_dtype == torch.float8_e4m3fn else None
    return table, (group, rule, scale_dtype, s0)


def _row_blocks(w: torch.Tensor) -> Iterator[torch.Tensor]:
    w = w.detach()
    rows = max(1, _BLOCK_ELEMENTS // w.shape[1])
    return (w[i : i + rows] for i in range(0, max(w.shape[0], 1), rows))


def _quantize_rows(w, bits, settings, search):
    """(qweight, scales, zeros) of a block of rows."""
    group, rule, scale_dtype, s0 = settings
    groups, valid = _in_groups(w.float(), group)
    wanted = rule.scale(groups, valid)
    shrinks = _SHRINKS if search == "mse" else _SHRINKS[:1]
    best = None
    for shrink in shrinks:
        scales, factor = _store_scales(wanted * shrink, scale_dtype, s0)
        zeros = rule.zeros(groups, valid, factor.unsqueeze(-1), shrink)
        codes = rule.codes(groups, factor.unsqueeze(-1), zeros)
        error = rule.values(codes, factor.unsqueeze(-1), zeros).sub_(groups).square_()
        best = _keep_better(
            best, (sum_columns(error.mul_(valid)), codes, scales, zeros.squeeze(-1))
        )
    _, codes, scales, zeros = best
    codes = codes.flatten(1)[:, : w.shape[1]].to(torch.uint8)
    return pack_codes(codes, bits), scales, _store_zeros(rule, zeros, w)


def _store_zeros(rule, zeros: torch.Tensor, w: torch.Tensor) -> torch.Tensor | None:
    stored = rule.stored_zeros(zeros)
    if stored is not None and not torch.isfinite(stored).all():
        need = f"give zero points within the range of {dtype_name(stored.dtype)}"
        refuse(_OP, "w", need, f"a largest weight of {w.abs().max().item():.3g}")
    return stored


def _in_groups(w: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """w[n, K] -> [n, G, group], zeros behind a ragged last group; and the columns that count."""
    n, k = w.shape
    count = -(-k // group)
    padded = w if k == count * group else torch.nn.functional.pad(w, (0, count * group - k))
    valid = torch.arange(count * group, device=w.device).reshape(count, group) < k
    return padded.reshape(n, count, group), valid


def _store_scales(
    wanted: torch.Tensor, dtype: torch.dtype, s0: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the scales as stored, the float32 factor that they stand for)."""
    scaled = wanted if s0 is None else wanted / s0
    ones = torch.ones((), device=wanted.device)
    if dtype == torch.float8_e8m0fnu:
        stored = round_up_to_power_of_two(torch.where(scaled > 0, scaled, ones))
    else:
        stored = scaled.to(dtype)
        lost = (stored.float() == 0) & (scaled > 0)
        tiny = torch.tensor(_smallest_positive(dtype), dtype=dtype, device=wanted.device)
        stored = torch.where(lost, tiny, stored)
        stored = torch.where(scaled > 0, stored, ones.to(dtype))
    factor = stored.float() if s0 is None else stored.float() * s0
    if not torch.isfinite(factor).all():
        remedy = "pass scale_dtype=torch.float32 or torch.bfloat16"
        need = f"give scales within the range of {dtype_name(dtype)}"
        refuse(_OP, "w", need, f"a scale of {wanted.max().item():.3g}", remedy)
    return stored, factor


def round_up_to_power_of_two(scales: torch.Tensor) -> torch.Tensor:
    """Positive float32 scales -> float8_e8m0fnu, the next power of two at or above each.

    NaN above 2**127, the largest number of the dtype.
    """
    mantissa, exponent = torch.frexp(scales)
    exponent = exponent - (mantissa == 0.5).to(exponent.dtype)
    biased = (exponent + 127).clamp_(0, 254)
    biased = torch.where(scales > 2.0**127, 255, biased).to(torch.uint8)
    return biased.view(torch.float8_e8m0fnu)


def _smallest_positive(dtype: torch.dtype) -> float:
    if dtype == torch.float8_e4m3fn:
        return 2.0**-9
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def _keep_better(best, candidate):
    """Group by group the candidate (error, codes, scales, zeros) where its error is less."""
    if best is None:
        return candidate
    less = candidate[0] < best[0]
    return tuple(
        torch.where(less.unsqueeze(-1) if new.dim() > less.dim() else less, new, old)
        for new, old in zip(candidate, best, strict=True)
    )


def _second_level(w: torch.Tensor, group: int, rule) -> torch.Tensor:
    """The float32 scalar that puts the largest group scale at the top of float8_e4m3fn."""
    rows = max(1, _BLOCK_ELEMENTS // w.shape[1])
    peaks = [rule.scale(*_in_groups(b.float(), group)).max() for b in w.split(rows) if b.numel()]
    peak = torch.stack(peaks).max() if peaks else w.new_zeros((), dtype=torch.float32)
    # Below the normal numbers the quotient would lose its precision, and its products vanish.
    smallest = torch.finfo(torch.float32).smallest_normal
    return torch.where(peak > 0, (peak / _E4M3_MAX).clamp_min(smallest), torch.ones_like(peak))


def _check_arguments(w, bits, group_size, element, search) -> torch.Tensor | None:
    """Refuse what cannot be quantized; return the table of the element, None for "uint"."""
    require_tensor(_OP, "w", w)
    require_dtype(_OP, "w", w.dtype, WEIGHT_DTYPES)
    if w.dim() != 2 or not w.shape[1]:
        refuse(_OP, "w", "be a matrix [N, K] with K >= 1", list(w.shape))
    if w.is_meta:
        refuse(_OP, "w", "be a tensor with data", "a meta tensor")
    require_integer(_OP, "bits", bits)
    require_integer(_OP, "group_size", group_size)
    if bits not in PLANE_WIDTHS:
        refuse(_OP, "bits", "be 1 to 8", bits)
    if group_size != -1 and group_size < 1:
        refuse(_OP, "group_size", "be at least 1, or -1 for one group a row", group_size)
    if search not in _SEARCHES:
        refuse(_OP, "search", f"be one of {', '.join(_SEARCHES)}", repr(search))
    if not all(torch.isfinite(rows.float()).all() for rows in _row_blocks(w)):
        refuse(_OP, "w", "be finite", "NaN or Inf", "find the broken layer before quantizing")
    if isinstance(element, str):
        if element not in ("uint", *TABLE_NAMES):
            names = ", ".join(("uint", *TABLE_NAMES))
            refuse(_OP, "element", f"be one of {names}, or a table", repr(element))
        table = None if element == "uint" else element_table(element, w.device)
    elif not isinstance(element, torch.Tensor):
        need = "be a name or a tensor of levels"
        refuse(_OP, "element", need, type(element).__name__, error=TypeError)
    else:
        table = element.detach().to(device=w.device, dtype=torch.float32, copy=True).contiguous()
    if table is not None:
        _check_table(table, bits)
    return table


def _check_table(table: torch.Tensor, bits: int) -> None:
    if bits not in TABLE_BITS or table.shape != (1 << bits,):
        need = "have 2**bits entries, with bits from 1 to 4"
        refuse(_OP, "element", need, f"{list(table.shape)} for bits={bits}")
    if not torch.isfinite(table).all() or not table.abs().max() > 0:
        refuse(_OP, "element", "hold finite numbers, not all of them zero", table.tolist())


def _resolve_scale_dtype(w: torch.Tensor, scale_dtype: torch.dtype | None) -> torch.dtype:
    if scale_dtype is None:
        return torch.bfloat16 if w.dtype == torch.bfloat16 else torch.float16
    require_dtype(_OP, "scale_dtype", scale_dtype, SCALE_DTYPES)
    return scale_dtype
