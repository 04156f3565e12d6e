"""Canonical storage of 1- to 8-bit codes: bit planes of int32 words along K (docs/formats.md).

A code of `bits` bits is cut into planes whose widths divide 32, the lowest bits first. The planes
of a row stand one after the other, each padded to whole words:

    qweight[n, :] = plane 0 words | plane 1 words | ...

and element j of a plane of width b is at bit (j*b) % 32 of word (j*b) // 32, little-endian.
"""

import torch

from lowbit.errors import refuse

PLANE_WIDTHS = {
    1: (1,),
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}


def plane_words(bits: int, k: int) -> tuple[int, ...]:
    """The number of int32 words that each plane of a row of `k` codes takes."""
    return tuple(-(-k * width // 32) for width in PLANE_WIDTHS[bits])


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes[n, k] (uint8, each below 2**bits) into int32 words [n, sum(plane_words)].

    Padding bits are zero. Raises ValueError for another dtype or rank; code values are the caller's
    duty (`QuantizedWeight.from_parts` checks them).
    """
    if codes.dtype != torch.uint8 or codes.dim() != 2:
        got = f"{codes.dtype} with {codes.dim()} dimensions"
        refuse("pack_codes", "codes", "be a 2-D uint8 tensor", got)
    planes, shift = [], 0
    for width, words in zip(PLANE_WIDTHS[bits], plane_words(bits, codes.shape[1]), strict=True):
        planes.append(_pack_plane((codes >> shift) & ((1 << width) - 1), width, words))
        shift += width
    return torch.cat(planes, dim=1)


def unpack_codes(qweight: torch.Tensor, bits: int, k: int) -> torch.Tensor:
    """The codes uint8[n, k] of int32 words [n, sum(plane_words)]; the inverse of pack_codes."""
    codes, shift, start = None, 0, 0
    for width, words in zip(PLANE_WIDTHS[bits], plane_words(bits, k), strict=True):
        plane = _unpack_plane(qweight[:, start : start + words], width, k)
        codes = plane if codes is None else codes | (plane << shift)
        shift += width
        start += words
    return codes


def _pack_plane(values: torch.Tensor, width: int, words: int) -> torch.Tensor:
    n, k = values.shape
    per_byte = 8 // width
    padded = values.new_zeros(n, words * 4 * per_byte)
    padded[:, :k] = values
    packed = padded[:, 0::per_byte].clone(memory_format=torch.contiguous_format)
    for j in range(1, per_byte):
        packed |= padded[:, j::per_byte] << (j * width)
    return packed.view(torch.int32)


def _unpack_plane(words: torch.Tensor, width: int, k: int) -> torch.Tensor:
    packed = words.contiguous().view(torch.uint8)
    per_byte = 8 // width
    mask = (1 << width) - 1
    values = packed.new_empty(packed.shape[0], packed.shape[1] * per_byte)
    for j in range(per_byte):
        values[:, j::per_byte] = (packed >> (j * width)) & mask
    return values[:, :k]
