"""The parts of a weight from one layout to the other."""

import torch

from lowbit.formats.panels import pack_row_scales, unpack_panels, unpack_row_scales
from lowbit.formats.weight_format import CANONICAL, PANELS, WeightFormat

Parts = tuple[torch.Tensor | None, ...]


def parts_with_codes(
    codes: torch.Tensor, tensors: Parts, fmt: WeightFormat, layout: int
) -> tuple[Parts, WeightFormat]:
    """(qweight, scales, zeros, table, s0) and format in `layout`, in which `codes` already are."""
    _, scales, zeros, table, s0 = tensors
    if fmt.layout != layout and fmt.block_n == 1:
        scales = _relaid(scales, fmt.n, layout)
        zeros = None if zeros is None else _relaid(zeros, fmt.n, layout)
    return (codes, scales, zeros, table, s0), fmt._replace(layout=layout)


def canonical_parts(tensors: Parts, fmt: WeightFormat) -> tuple[Parts, WeightFormat]:
    """The parts and format in the canonical layout; themselves if they are."""
    if fmt.layout == CANONICAL:
        return tensors, fmt
    codes = tensors[0].new_empty(fmt._replace(layout=CANONICAL).code_shape)
    unpack_panels(tensors[0], fmt.bits, fmt.k, fmt.block_k, codes)
    return parts_with_codes(codes, tensors, fmt, CANONICAL)


def _relaid(scales: torch.Tensor, n: int, layout: int) -> torch.Tensor:
    return pack_row_scales(scales) if layout == PANELS else unpack_row_scales(scales, n)
