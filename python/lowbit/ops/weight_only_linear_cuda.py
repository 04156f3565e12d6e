"""The CUDA kernel of weight_only_linear: what it multiplies, made from the op's arguments.

The kernel (csrc/cuda/weight_only_linear.cu) takes weights in fragments and x in float16 or
bfloat16. A float32 x is the sum of three bfloat16 parts, and so is a float32 table: products of
parts are exact, so that all of them together are a product in float32.
"""

import torch

from lowbit import registry
from lowbit.formats.numerics import DENSE, operand_dtype
from lowbit.formats.weight_format import ZERO_KINDS, WeightFormat

Parts = tuple[torch.Tensor | None, ...]

registry.LIBRARY.define(
    "_fragment_linear(Tensor x, Tensor qweight, Tensor scales, Tensor? zeros, Tensor? table, "
    "Tensor? s0, Tensor? bias, Tensor? addend, int[] format, bool any_rows, Tensor(a!) out) -> ()"
)
_multiply = torch.ops.lowbit._fragment_linear.default
_UNIT = 32  # columns
_ALIGNED = 8  # elements: 16 bytes
# Rows of x in one call of the kernel, which bounds its float32 sums.
_ROWS = 512


def multiply_fragments(x, tensors: Parts, permutation, bias, addend, fmt, numerics, out) -> None:
    """out [m, n] = x [m, k] @ weight.T + addend + bias for a weight in fragments."""
    tensors, fmt = _with_scales_of_rows(tensors, fmt)
    operand = operand_dtype(numerics, x.dtype, tensors[3] is not None)
    weights = _summands(tensors, fmt) if operand == torch.float32 else [(tensors, fmt)]
    for start in range(0, len(out), _ROWS):
        rows = slice(start, start + _ROWS)
        parts = _operand(x[rows], permutation, fmt, operand)
        total, result = None if addend is None else addend[rows], out[rows]
        for number, (weight, weight_fmt) in enumerate(weights, 1):
            last = number == len(weights)
            # What the summands of a weight add up to stays in float32.
            target = result if last else torch.empty_like(result, dtype=torch.float32)
            _multiply(
                parts, *weight, bias if last else None, total, weight_fmt, numerics != DENSE, target
            )
            total = target


def _operand(x, permutation, fmt: WeightFormat, operand: torch.dtype) -> torch.Tensor:
    """x as [parts, m, columns] in what is multiplied."""
    x = x if permutation is None else x.index_select(1, permutation)
    exact = operand == torch.float32
    return _on_units(torch.stack(bfloat16_parts(x.float())) if exact else x.to(operand)[None], fmt)


def bfloat16_parts(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three bfloat16 tensors whose sum is the float32 one; of what is not finite, all in the first.

    Cut instead of rounded: so no part leaves the range, and each holds the next 8 bits.
    """
    high = _cut(values)
    rest = torch.where(torch.isfinite(values), values - high, 0.0)
    middle = _cut(rest)
    return tuple(part.bfloat16() for part in (high, middle, rest - middle))


def _cut(values: torch.Tensor) -> torch.Tensor:
    """Towards zero to what bfloat16 holds; NaN stays NaN."""
    cut = (values.view(torch.int32) & -0x10000).view(torch.float32)
    return torch.where(torch.isnan(values), values, cut)


def _summands(tensors: Parts, fmt: WeightFormat) -> list[tuple[Parts, WeightFormat]]:
    """Weights that add up to the weight: one for each part of a table, the last with the zeros."""
    qweight, scales, _, table, s0 = tensors
    if table is None:
        return [(tensors, fmt)]
    high, middle, low = (part.float() for part in bfloat16_parts(table))
    without_zeros = fmt._replace(zero_kind=ZERO_KINDS.index("none"))
    small = [((qweight, scales, None, part, s0), without_zeros) for part in (low, middle)]
    return [*small, ((*tensors[:3], high, s0), fmt)]


def _with_scales_of_rows(tensors: Parts, fmt: WeightFormat) -> tuple[Parts, WeightFormat]:
    """The same weight with scales and zeros for each row, as fragments have them."""
    if fmt.block_n == 1:
        return tensors, fmt
    qweight, scales, zeros, table, s0 = tensors
    spread = fmt._replace(block_n=1)
    panels, groups, panel_rows = spread.stored_scale_shape
    block = torch.arange(panels * panel_rows, device=scales.device) // fmt.block_n
    block = block.clamp(max=fmt.scale_shape[0] - 1)

    def of_rows(values: torch.Tensor) -> torch.Tensor:
        stored = values.view(torch.uint8) if values.dtype.itemsize == 1 else values
        rows = stored.index_select(0, block).view(panels, panel_rows, groups).transpose(1, 2)
        return rows.contiguous().view(values.dtype)

    zeros = None if zeros is None else of_rows(zeros)
    return (qweight, of_rows(scales), zeros, table, s0), spread


def _on_units(x: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """x [parts, m, k] as the kernel reads it: rows on 16 bytes, groups filled up to units."""
    parts, m, k = x.shape
    groups = fmt.scale_shape[1]
    if groups > 1 and fmt.block_k % _UNIT:
        units = -(-fmt.block_k // _UNIT) * _UNIT
        of_last = k - (groups - 1) * fmt.block_k
        x = torch.nn.functional.pad(x, (0, groups * fmt.block_k - k))
        x = torch.nn.functional.pad(
            x.reshape(parts, m, groups, fmt.block_k), (0, units - fmt.block_k)
        )
        # A view, whose rows begin on units and so on 16 bytes.
        return x.view(parts, m, -1)[..., : (groups - 1) * units + -(-of_last // _UNIT) * _UNIT]
    aligned = x.stride(2) == 1 and x.stride(1) % _ALIGNED == 0 and x.stride(1) >= k
    if aligned and x.data_ptr() % 16 == 0:
        return x
    return torch.nn.functional.pad(x, (0, -k % _ALIGNED))[..., :k]
