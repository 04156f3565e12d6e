"""What the packed layouts share: panels of 64 rows, and columns cut into groups of whole units.

A panel is 64 rows of the weight. Its columns are cut into the scale groups, each padded with zero
codes to whole units. A layout is a UnitOrder: panels.py and fragments.py define one each.

    packed[panel, :] = unit 0 | unit 1 | ...      int32, dense

The functions here hold a few panels besides what they are given and return.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from lowbit.formats.packing import PLANE_WIDTHS, pack_codes, unpack_codes

PANEL_ROWS = 64
# Padded codes that are taken in hand at a time, as bytes; about six copies of them live at once.
_CHUNK_ELEMENTS = 1 << 20


class UnitOrder(NamedTuple):
    """A layout: a unit is `columns(bits)` columns of a panel, in blocks of `rows` rows.

    A block is its planes, low plane first (PLANE_WIDTHS), and a plane is bytes of 8 // width
    fields. places(byte, field, width) -> (row, column) in the block of the code whose bits these
    are; all are integer tensors that broadcast.
    """

    columns: Callable[[int], int]
    rows: int
    places: Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]


def panel_count(n: int) -> int:
    """Panels of a weight of n rows."""
    return -(-n // PANEL_ROWS)


def panel_words(order: UnitOrder, bits: int, k: int, block_k: int) -> int:
    """The number of int32 words of a panel."""
    return _padded_columns(order.columns(bits), k, block_k) * PANEL_ROWS * bits // 32


def pack_panels(
    order: UnitOrder, qweight: torch.Tensor, bits: int, k: int, block_k: int, out: torch.Tensor
) -> None:
    """Write canonical words qweight[n, words] as panels into out[panels, panel_words]."""
    unit = order.columns(bits)
    positions = _positions(unit, k, block_k, qweight.device)
    columns = _padded_columns(unit, k, block_k)
    for first, last in _panel_chunks(qweight.shape[0], columns):
        rows = qweight[first * PANEL_ROWS : last * PANEL_ROWS]
        padded = rows.new_zeros((last - first) * PANEL_ROWS, columns, dtype=torch.uint8)
        padded[: len(rows), positions] = unpack_codes(rows, bits, k)
        _pack_units(order, padded, bits, out[first:last])


def unpack_panels(
    order: UnitOrder, packed: torch.Tensor, bits: int, k: int, block_k: int, out: torch.Tensor
) -> None:
    """The inverse of pack_panels: write canonical words into out[n, words]; padding bits are 0."""
    for rows, codes in _code_chunks(order, packed, bits, len(out), k, block_k):
        out[rows] = pack_codes(codes, bits)


def panel_codes(
    order: UnitOrder, packed: torch.Tensor, bits: int, n: int, k: int, block_k: int
) -> torch.Tensor:
    """The codes uint8[n, k] of packed[panels, panel_words]."""
    out = packed.new_empty((n, k), dtype=torch.uint8)
    for rows, codes in _code_chunks(order, packed, bits, n, k, block_k):
        out[rows] = codes
    return out


def pack_row_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales or zeros of single rows, [n, G], as [panels, G, 64]; zero bytes stand behind row n."""
    n, groups = scales.shape
    raw = _bytes_of(scales)
    padded = raw.new_zeros(panel_count(n) * PANEL_ROWS, groups)
    padded[:n] = raw
    packed = padded.unflatten(0, (-1, PANEL_ROWS)).transpose(1, 2)
    # clone, because contiguous() keeps the strides of an empty tensor
    return packed.clone(memory_format=torch.contiguous_format).view(scales.dtype)


def unpack_row_scales(packed: torch.Tensor, n: int) -> torch.Tensor:
    """The inverse of pack_row_scales: [n, G], dense."""
    rows = _bytes_of(packed).transpose(1, 2).flatten(0, 1)[:n]
    return rows.clone(memory_format=torch.contiguous_format).view(packed.dtype)


def _padded(columns: int, unit: int) -> int:
    return -(-columns // unit) * unit


def _padded_columns(unit: int, k: int, block_k: int) -> int:
    """Columns of a panel, with those that fill each group up to whole units."""
    full, rest = divmod(k, block_k)
    return full * _padded(block_k, unit) + _padded(rest, unit)


def _positions(unit: int, k: int, block_k: int, device: torch.device) -> torch.Tensor:
    """Where each of the k columns stands among the padded ones."""
    column = torch.arange(k, device=device)
    return column // block_k * _padded(block_k, unit) + column % block_k


def _panel_chunks(n: int, columns: int) -> Iterator[tuple[int, int]]:
    count = panel_count(n)
    step = max(1, _CHUNK_ELEMENTS // (PANEL_ROWS * columns))
    return ((first, min(first + step, count)) for first in range(0, count, step))


def _code_chunks(order, packed, bits, n, k, block_k) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, their codes uint8[rows, k]) of a few panels at a time."""
    unit = order.columns(bits)
    positions = _positions(unit, k, block_k, packed.device)
    columns = _padded_columns(unit, k, block_k)
    for first, last in _panel_chunks(n, columns):
        rows = slice(first * PANEL_ROWS, min(last * PANEL_ROWS, n))
        codes = _unpack_units(order, packed[first:last], bits, columns)
        yield rows, codes[: rows.stop - rows.start].index_select(1, positions)


# Within the following, codes and bytes lie as [place in a block, blocks], so that all that is done
# with the codes of one place is done with a whole row of memory.


def _pack_units(order: UnitOrder, padded: torch.Tensor, bits: int, out: torch.Tensor) -> None:
    """Codes [panels * 64, whole units] -> out[panels, words]."""
    unit = order.columns(bits)
    cut = padded.view(len(out), PANEL_ROWS // order.rows, order.rows, -1, unit)
    codes = cut.permute(2, 4, 0, 3, 1).reshape(order.rows * unit, -1)
    planes, low = [], 0
    for width in PLANE_WIDTHS[bits]:
        plane = torch.zeros_like(codes[: order.rows * unit * width // 8])
        for field, places in enumerate(_places(order, unit, width, out.device)):
            values = (codes.index_select(0, places) >> low) & ((1 << width) - 1)
            plane |= values << (field * width)
        planes.append(plane)
        low += width
    packed = torch.cat(planes)
    out.view(torch.uint8).view(-1, len(packed)).copy_(packed.t())


def _unpack_units(order: UnitOrder, packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The inverse of _pack_units: uint8[panels * 64, columns]."""
    unit = order.columns(bits)
    size = order.rows * unit
    planes = packed.view(torch.uint8).view(-1, size * bits // 8).t().contiguous()
    codes, start, low = 0, 0, 0
    for width in PLANE_WIDTHS[bits]:
        plane = planes[start : start + size * width // 8]
        fields = [(plane >> shift) & ((1 << width) - 1) for shift in range(0, 8, width)]
        values = torch.cat(fields) << low
        origin = _places(order, unit, width, packed.device).flatten().argsort()
        codes = values.index_select(0, origin) | codes
        start, low = start + len(plane), low + width
    cut = codes.view(order.rows, unit, len(packed), -1, PANEL_ROWS // order.rows)
    return cut.permute(2, 4, 0, 3, 1).reshape(-1, columns)


def _places(order: UnitOrder, unit: int, width: int, device: torch.device) -> torch.Tensor:
    """Where in a block the codes of a plane are: [field, byte]."""
    byte = torch.arange(order.rows * unit * width // 8, device=device)
    row, column = order.places(byte, torch.arange(8 // width, device=device)[:, None], width)
    return row * unit + column


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """float8 tensors as bytes, because few torch ops take them."""
    return tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
