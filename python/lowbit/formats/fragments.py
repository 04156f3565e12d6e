"""The layout "fragments": codes as tensor cores of CUDA devices take them (docs/formats.md).

A unit is 32 columns of 64 rows, in two blocks of 32 rows. A plane of width p is 32 lanes times p
words. Lane 4*g + c (g = 0..7, c = 0..3) holds 16 pairs of codes. Pair q = (s*2 + t)*4 + i
(s, t in 0..1, i in 0..3) has the elements e = 0 and 1 of

    row 4*g + 2*t + i % 2 of the block       column 16*s + 8 * (i // 2) + 2*c + e of the unit

in word q // (16/p) of the lane, at bits (q % (16/p))*p + 16*e.
"""

from lowbit.formats.packed import UnitOrder

_COLUMNS, _ROWS = 32, 32


def _places(byte, field, width: int):
    lane, byte = byte // (4 * width), byte % (4 * width)
    # A word has two bytes for each element.
    word, e, byte = byte // 4, byte % 4 // 2, byte % 2
    q = (word * 2 + byte) * (8 // width) + field
    g, c = lane // 4, lane % 4
    s, t, i = q // 8, q // 4 % 2, q % 4
    return 4 * g + 2 * t + i % 2, 16 * s + 8 * (i // 2) + 2 * c + e


FRAGMENT_ORDER = UnitOrder(lambda bits: _COLUMNS, _ROWS, _places)
