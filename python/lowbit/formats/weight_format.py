"""WeightFormat: the integers that say how the tensors of a quantized weight are read, and the rule.

    w[n, k] = S * (T[c] - z)      S = scales * s0, groups of block_n rows by block_k columns

for the zero kinds none (z = 0), midpoint (z = 2**(bits-1)) and code; for the zero kind value it is
w = S * T[c] + v. T is the identity or a table of 2**bits entries. Everything is computed in float32
with one rounding an operation, so every backend can reproduce it bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lowbit.errors import (
    refuse,
    require_contiguous,
    require_device,
    require_dtype,
    require_range,
    require_shape,
)
from lowbit.formats.fragments import FRAGMENT_ORDER
from lowbit.formats.packed import (
    PANEL_ROWS,
    panel_codes,
    panel_count,
    panel_words,
    unpack_row_scales,
)
from lowbit.formats.packing import plane_words, unpack_codes
from lowbit.formats.panels import PANEL_ORDER

FORMAT_VERSION = 1
ZERO_KINDS = ("none", "midpoint", "code", "value")
LAYOUTS = ("canonical", "panels", "fragments")
CANONICAL, PANELS, FRAGMENTS = range(3)
# The order of codes in a unit of each layout; canonical ones have no units.
ORDERS = (None, PANEL_ORDER, FRAGMENT_ORDER)
SCALE_DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e8m0fnu,
)
ZERO_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
TABLE_BITS = (1, 2, 3, 4)
# Extents stay below 2**31, so that bit and group counts cannot overflow 64 bits in the kernels.
MAX_EXTENT = 2**31 - 1
_INTEGERS = tuple(f"uint{bits}" for bits in range(1, 9))
_TABLES = tuple(f"table{bits}" for bits in TABLE_BITS)
ELEMENTS = _INTEGERS + _TABLES
PARTS = ("qweight", "scales", "zeros", "table", "s0", "permutation")
# The arguments of a weight in the schema of an op, and the capability rows of kernels that take
# every weight, in layouts of their own or the canonical one; weight_kind gives the fields that they
# are matched with.
SCHEMA = "Tensor qweight, Tensor scales, Tensor? zeros, Tensor? table, Tensor? s0"
EVERY_WEIGHT = {"element": ELEMENTS, "zeros": ZERO_KINDS, "scales": SCALE_DTYPES}
EVERY_CANONICAL_WEIGHT = {**EVERY_WEIGHT, "layout": (LAYOUTS[CANONICAL],)}


class WeightFormat(NamedTuple):
    """The integers that tell how the tensors of a weight are read; the ops take it as int[]."""

    version: int
    bits: int
    n: int
    k: int
    block_n: int
    block_k: int
    zero_kind: int
    layout: int = 0

    @property
    def scale_shape(self) -> tuple[int, int]:
        """The shape of scales and zeros in the canonical layout: (row blocks, groups)."""
        return -(-self.n // self.block_n), -(-self.k // self.block_k)

    @property
    def stored_scale_shape(self) -> tuple[int, ...]:
        """The shape of scales and zeros in the format's own layout."""
        groups = self.scale_shape[1]
        if self.layout != CANONICAL and self.block_n == 1:
            return panel_count(self.n), groups, PANEL_ROWS
        return self.scale_shape

    @property
    def code_shape(self) -> tuple[int, int]:
        """The shape of qweight in the format's own layout."""
        if self.layout == CANONICAL:
            return self.n, sum(plane_words(self.bits, self.k))
        words = panel_words(ORDERS[self.layout], self.bits, self.k, self.block_k)
        return panel_count(self.n), words


def weight_kind(
    scales: torch.Tensor, table: torch.Tensor | None, fmt: Sequence[int]
) -> tuple[str, str, torch.dtype, str]:
    """(element, zeros, scales, layout): what capability rows know of a weight."""
    elements = _INTEGERS if table is None else _TABLES
    return elements[fmt[1] - 1], ZERO_KINDS[fmt[6]], scales.dtype, LAYOUTS[fmt[7]]


def read_format(where: str, numbers: Any) -> WeightFormat:
    """A WeightFormat from plain integers; refuses another format_version by name."""
    numbers = numbers.tolist() if isinstance(numbers, torch.Tensor) else list(numbers)
    if numbers and numbers[0] != FORMAT_VERSION:
        version = numbers[0]
        remedy = "update lowbit" if isinstance(version, int) and version > FORMAT_VERSION else ""
        refuse(where, "format_version", f"be {FORMAT_VERSION}", version, remedy)
    if len(numbers) != len(WeightFormat._fields):
        refuse(where, "format", f"have {len(WeightFormat._fields)} fields", len(numbers))
    return WeightFormat(*numbers)


def read_stored_format(where: str, numbers: Any) -> WeightFormat:
    """A WeightFormat from the integers of a file, where only the canonical layout is allowed."""
    fmt = read_format(where, numbers)
    check_format(where, fmt)
    require_layout(where, fmt, "canonical", remedy="store unpack(weight)")
    return fmt


def require_packed(where: str, fmt: WeightFormat) -> None:
    """ValueError if the weight is in the canonical layout."""
    if fmt.layout == CANONICAL:
        need = f"have the layout {' or '.join(LAYOUTS[1:])}"
        refuse(where, "format", need, LAYOUTS[CANONICAL])


def require_layout(where: str, fmt: WeightFormat, *layouts: str, remedy: str = "") -> None:
    """Of the layouts, those that an op or a kernel reads."""
    if LAYOUTS[fmt.layout] not in layouts:
        got = LAYOUTS[fmt.layout]
        refuse(where, "format", f"have the layout {' or '.join(layouts)}", got, remedy)


def dequantize_parts(
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    fmt: WeightFormat,
) -> torch.Tensor:
    """The value rule in float32: what every backend's dequantization equals bit for bit.

    Of stored columns: a permutation is left to the caller.
    """
    codes = unpack_weight_codes(qweight, fmt)
    t = codes.float() if table is None else table[codes.long()]
    scale = row_scales(scales, fmt)
    if s0 is not None:
        scale = scale * s0.reshape(-1, 1)
    kind = ZERO_KINDS[fmt.zero_kind]
    if kind == "midpoint":
        t = t - float(1 << (fmt.bits - 1))
    elif kind == "code":
        t = t - _spread(row_scales(zeros, fmt), fmt)
    w = t * _spread(scale, fmt)
    if kind == "value":
        w = w + _spread(row_scales(zeros, fmt), fmt)
    return w


def logical_columns(stored: torch.Tensor, permutation: torch.Tensor | None) -> torch.Tensor:
    """Columns [..., K] of a weight as stored -> in their logical order: permutation[j] for j."""
    if permutation is None:
        return stored
    return stored.index_select(-1, permutation.argsort())


def unpack_weight_codes(qweight: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """The codes uint8[N, K] of the packed words, in any layout."""
    if fmt.layout == CANONICAL:
        return unpack_codes(qweight, fmt.bits, fmt.k)
    return panel_codes(ORDERS[fmt.layout], qweight, fmt.bits, fmt.n, fmt.k, fmt.block_k)


def row_scales(blocks: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """Scales or zeros in any layout -> one a row, in float32: [N, G]."""
    if blocks.dim() == 3:
        return unpack_row_scales(blocks, fmt.n).float()
    return blocks.float().repeat_interleave(max(1, min(fmt.block_n, fmt.n)), 0)[: fmt.n]


def _spread(groups: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """One value a group [N, G] -> one a column [N, K]."""
    return groups.repeat_interleave(min(fmt.block_k, fmt.k), 1)[:, : fmt.k]


def check_weight(
    where: str,
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    fmt: WeightFormat,
) -> None:
    """Raise unless the tensors fit the format. Reads shapes and dtypes, never data."""
    check_codes(where, qweight, fmt)
    device = qweight.device
    _check_groups(where, "scales", scales, SCALE_DTYPES, fmt, device)
    _check_zeros(where, zeros, fmt, device)
    if table is not None:
        if fmt.bits not in TABLE_BITS:
            need = f"be None above {TABLE_BITS[-1]} bits"
            refuse(where, "table", need, f"a tensor at {fmt.bits} bits")
        _check_tensor(where, "table", table, (torch.float32,), (1 << fmt.bits,), device)
        _require_dense_rows(where, "table", table)
    if s0 is not None:
        shape = () if s0.dim() == 0 else (fmt.n,)
        _check_tensor(where, "s0", s0, (torch.float32,), shape, device)
        if shape:
            _require_dense_rows(where, "s0", s0)


def check_codes(where: str, qweight: torch.Tensor, fmt: WeightFormat) -> None:
    """Raise unless the format is one and the packed codes fit it. Reads no data."""
    check_format(where, fmt)
    _check_tensor(where, "qweight", qweight, (torch.int32,), fmt.code_shape, qweight.device)
    if fmt.layout == CANONICAL:
        _require_dense_rows(where, "qweight", qweight)
    else:
        require_contiguous(where, "qweight", qweight)


def check_permutation(where: str, permutation: torch.Tensor, fmt: WeightFormat, device) -> None:
    """Raise unless it is int32[K] on the device, dense. Reads no data."""
    _check_tensor(where, "permutation", permutation, (torch.int32,), (fmt.k,), device)
    _require_dense_rows(where, "permutation", permutation)


def _check_zeros(where, zeros, fmt: WeightFormat, device) -> None:
    kind = ZERO_KINDS[fmt.zero_kind]
    stored = kind in ("code", "value")
    if zeros is None:
        if stored:
            refuse(where, "zeros", f"be a tensor for the zero kind {kind}", "None")
        return
    if not stored:
        got = f"a tensor of shape {list(zeros.shape)}"
        refuse(where, "zeros", f"be None for the zero kind {kind}", got)
    _check_groups(where, "zeros", zeros, ZERO_DTYPES, fmt, device)


def _check_groups(where, name, tensor, dtypes, fmt: WeightFormat, device) -> None:
    shape = fmt.stored_scale_shape
    _check_tensor(where, name, tensor, dtypes, shape, device)
    if len(shape) == 3:
        require_contiguous(where, name, tensor)
    else:
        _require_dense_rows(where, name, tensor)


def check_format(where: str, fmt: WeightFormat) -> None:
    """Raise ValueError unless the integers describe a format that this package reads."""
    read_format(where, fmt)
    require_range(where, "format", "bits", fmt.bits, 1, 8)
    require_range(where, "format", "n", fmt.n, 0, MAX_EXTENT)
    for field in ("k", "block_n", "block_k"):
        require_range(where, "format", field, getattr(fmt, field), 1, MAX_EXTENT)
    require_range(where, "format", "zero_kind", fmt.zero_kind, 0, len(ZERO_KINDS) - 1)
    require_range(where, "format", "layout", fmt.layout, 0, len(LAYOUTS) - 1)


def _check_tensor(where, name, tensor, dtypes, shape, device) -> None:
    require_dtype(where, name, tensor.dtype, dtypes)
    require_shape(where, name, tensor, shape)
    require_device(where, name, tensor, device)


def _require_dense_rows(where: str, name: str, tensor: torch.Tensor) -> None:
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        got = f"stride {tensor.stride(-1)}"
        need = "have unit stride along its last dimension"
        refuse(where, name, need, got, "call .contiguous()")
