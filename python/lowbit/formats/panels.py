"""The layout "panels": codes in the order in which CPU kernels multiply them (docs/formats.md).

A panel is 64 rows of the weight. Its columns are cut into the scale groups, each padded with zero
codes to whole units of 32 / (narrowest plane width) columns. A unit of a panel is its planes, low
plane first; a plane of width p is unit * p / 32 vectors of 4 * 64 bytes. Byte b of the 64 for the
rows 16*j .. 16*j+15 belongs to row 16*j + b // 4, and its field f of p bits to the column
4 * (v * 8 // p + f) + b % 4 of the unit, v being the vector.

    packed[panel, :] = unit 0 | unit 1 | ...      int32, dense

The functions here define the layout; they hold a few panels besides what they are given and return.
"""

from collections.abc import Iterator

import torch

from lowbit.formats.packing import PLANE_WIDTHS, pack_codes, unpack_codes

PANEL_ROWS = 64
_LANE_ROWS = 16
_QUAD = 4
# Padded codes that are taken in hand at a time, as bytes; about six copies of them live at once.
_CHUNK_ELEMENTS = 1 << 20


def unit_columns(bits: int) -> int:
    """Columns of one unit: as many as fill a word with the narrowest plane."""
    return 32 // (bits & -bits)


def panel_count(n: int) -> int:
    """Panels of a weight of n rows."""
    return -(-n // PANEL_ROWS)


def padded_columns(bits: int, k: int, block_k: int) -> int:
    """Columns of a panel, with those that fill each group up to whole units."""
    full, rest = divmod(k, block_k)
    return full * _padded(block_k, bits) + _padded(rest, bits)


def panel_words(bits: int, k: int, block_k: int) -> int:
    """The number of int32 words of a panel."""
    return padded_columns(bits, k, block_k) * PANEL_ROWS * bits // 32


def pack_panels(qweight: torch.Tensor, bits: int, k: int, block_k: int, out: torch.Tensor) -> None:
    """Write canonical words qweight[n, words] as panels into out[panels, panel_words]."""
    positions = _positions(bits, k, block_k, qweight.device)
    columns = padded_columns(bits, k, block_k)
    for first, last in _panel_chunks(qweight.shape[0], columns):
        rows = qweight[first * PANEL_ROWS : last * PANEL_ROWS]
        padded = rows.new_zeros((last - first) * PANEL_ROWS, columns, dtype=torch.uint8)
        padded[: len(rows), positions] = unpack_codes(rows, bits, k)
        _pack_units(padded, bits, out[first:last])


def unpack_panels(packed: torch.Tensor, bits: int, k: int, block_k: int, out: torch.Tensor) -> None:
    """The inverse of pack_panels: write canonical words into out[n, words]; padding bits are 0."""
    for rows, codes in _code_chunks(packed, bits, len(out), k, block_k):
        out[rows] = pack_codes(codes, bits)


def panel_codes(packed: torch.Tensor, bits: int, n: int, k: int, block_k: int) -> torch.Tensor:
    """The codes uint8[n, k] of packed[panels, panel_words]."""
    out = packed.new_empty((n, k), dtype=torch.uint8)
    for rows, codes in _code_chunks(packed, bits, n, k, block_k):
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


def _padded(columns: int, bits: int) -> int:
    unit = unit_columns(bits)
    return -(-columns // unit) * unit


def _positions(bits: int, k: int, block_k: int, device: torch.device) -> torch.Tensor:
    """Where each of the k columns stands among the padded ones."""
    column = torch.arange(k, device=device)
    return column // block_k * _padded(block_k, bits) + column % block_k


def _panel_chunks(n: int, columns: int) -> Iterator[tuple[int, int]]:
    count = panel_count(n)
    step = max(1, _CHUNK_ELEMENTS // (PANEL_ROWS * columns))
    return ((first, min(first + step, count)) for first in range(0, count, step))


def _code_chunks(packed, bits, n, k, block_k) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, their codes uint8[rows, k]) of a few panels at a time."""
    positions = _positions(bits, k, block_k, packed.device)
    columns = padded_columns(bits, k, block_k)
    for first, last in _panel_chunks(n, columns):
        rows = slice(first * PANEL_ROWS, min(last * PANEL_ROWS, n))
        codes = _unpack_units(packed[first:last], bits, columns)[: rows.stop - rows.start]
        yield rows, codes.index_select(1, positions)


def _pack_units(padded: torch.Tensor, bits: int, out: torch.Tensor) -> None:
    """Codes [panels * 64, whole units] -> out[panels, words]."""
    panels, units = len(out), padded.shape[1] // unit_columns(bits)
    target, start, shift = out.view(torch.uint8).view(panels, units, -1), 0, 0
    for width in PLANE_WIDTHS[bits]:
        fields, vectors = _fields_and_vectors(width, bits)
        plane = (padded >> shift) & ((1 << width) - 1)
        plane = plane.view(panels, 4, _LANE_ROWS, units, vectors, fields, _QUAD)
        joined = plane[..., 0, :].clone()
        for field in range(1, fields):
            joined |= plane[..., field, :] << (field * width)
        stop = start + vectors * 4 * 64
        target[:, :, start:stop] = joined.permute(0, 3, 4, 1, 2, 5).flatten(2)
        start, shift = stop, shift + width


def _unpack_units(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The inverse of _pack_units: uint8[panels * 64, columns]."""
    panels, units = len(packed), columns // unit_columns(bits)
    source, start, shift = packed.view(torch.uint8).view(panels, units, -1), 0, 0
    codes = packed.new_zeros(panels * PANEL_ROWS, columns, dtype=torch.uint8)
    for width in PLANE_WIDTHS[bits]:
        fields, vectors = _fields_and_vectors(width, bits)
        stop = start + vectors * 4 * 64
        joined = source[:, :, start:stop].reshape(panels, units, vectors, 4, _LANE_ROWS, _QUAD)
        joined = joined.permute(0, 3, 4, 1, 2, 5)
        target = codes.view(panels, 4, _LANE_ROWS, units, vectors, fields, _QUAD)
        for field in range(fields):
            bits_of_field = (joined >> (field * width)) & ((1 << width) - 1)
            target[..., field, :] |= bits_of_field << shift
        start, shift = stop, shift + width
    return codes


def _fields_and_vectors(width: int, bits: int) -> tuple[int, int]:
    return 8 // width, unit_columns(bits) * width // 32


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """float8 tensors as bytes, because few torch ops take them."""
    return tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
