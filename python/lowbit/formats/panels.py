"""The layout "panels": codes in the order in which CPU kernels multiply them (docs/formats.md).

A unit is 32 / (narrowest plane width) columns of all 64 rows. A plane of width p is unit * p / 32
vectors of 4 * 64 bytes. Byte b of the 64 for the rows 16*j .. 16*j+15 belongs to row 16*j + b // 4
and its field f of p bits to the column 4 * (v * 8 // p + f) + b % 4 of the unit, v the vector.
"""

from lowbit.formats.packed import PANEL_ROWS, UnitOrder

_VECTOR_BYTES = 4 * PANEL_ROWS


def _unit_columns(bits: int) -> int:
    """As many as fill a word with the narrowest plane."""
    return 32 // (bits & -bits)


def _places(byte, field, width: int):
    vector, byte = byte // _VECTOR_BYTES, byte % _VECTOR_BYTES
    return byte // 4, 4 * (vector * (8 // width) + field) + byte % 4


PANEL_ORDER = UnitOrder(_unit_columns, PANEL_ROWS, _places)
