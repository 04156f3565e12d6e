"""The parts of a weight from one layout to the other."""

import torch

from lowbit.formats.packed import (
    pack_panels,
    pack_row_scales,
    unpack_panels,
    unpack_row_scales,
)
from lowbit.formats.weight_format import CANONICAL, ORDERS, WeightFormat

Parts = tuple[torch.Tensor | None, ...]


def pack_words(qweight: torch.Tensor, fmt: WeightFormat, layout: int, out: torch.Tensor) -> None:
    """Write canonical codes into out, in the packed layout."""
    pack_panels(ORDERS[layout], qweight, fmt.bits, fmt.k, fmt.block_k, out)


def unpack_words(packed: torch.Tensor, fmt: WeightFormat, out: torch.Tensor) -> None:
    """Write packed codes into out in the canonical layout; padding bits are 0."""
    unpack_panels(ORDERS[fmt.layout], packed, fmt.bits, fmt.k, fmt.block_k, out)


def parts_with_codes(
    codes: torch.Tensor, tensors: Parts, fmt: WeightFormat, layout: int
) -> tuple[Parts, WeightFormat]:
    """(qweight, scales, zeros, table, s0) and format in `layout`, in which `codes` already are."""
    _, scales, zeros, table, s0 = tensors
    if (fmt.layout == CANONICAL) != (layout == CANONICAL) and fmt.block_n == 1:
        scales = _relaid(scales, fmt.n, layout)
        zeros = None if zeros is None else _relaid(zeros, fmt.n, layout)
    return (codes, scales, zeros, table, s0), fmt._replace(layout=layout)


def canonical_parts(tensors: Parts, fmt: WeightFormat) -> tuple[Parts, WeightFormat]:
    """The parts and format in the canonical layout; themselves if they are."""
    if fmt.layout == CANONICAL:
        return tensors, fmt
    codes = tensors[0].new_empty(fmt._replace(layout=CANONICAL).code_shape)
    unpack_words(tensors[0], fmt, codes)
    return parts_with_codes(codes, tensors, fmt, CANONICAL)


def _relaid(scales: torch.Tensor, n: int, layout: int) -> torch.Tensor:
    return unpack_row_scales(scales, n) if layout == CANONICAL else pack_row_scales(scales)
