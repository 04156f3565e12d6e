"""QuantizedWeight: the value that quantized matmuls take (weight_format.py says what it means)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lowbit.errors import dtype_name, refuse, require_integer, require_tensor
from lowbit.formats.given_parts import (
    checked_codes,
    compact_integers,
    compact_permutation,
    require_permutation,
    scales_of_blocks,
)
from lowbit.formats.layouts import canonical_parts, parts_with_codes
from lowbit.formats.memory import copy_on_huge_pages, own_memory
from lowbit.formats.packed import PANEL_ROWS, panel_count
from lowbit.formats.packing import PLANE_WIDTHS, pack_codes, unpack_codes
from lowbit.formats.weight_format import (
    CANONICAL,
    FORMAT_VERSION,
    LAYOUTS,
    PANELS,
    PARTS,
    SCALE_DTYPES,
    ZERO_KINDS,
    WeightFormat,
    check_permutation,
    check_weight,
    dequantize_parts,
    logical_columns,
    read_format,
    read_stored_format,
    require_layout,
)


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A quantized matrix of logical shape [N, K]: plain tensors and a WeightFormat. Immutable.

    qweight int32[N, words]   codes in canonical planes (docs/formats.md)
    scales [ceil(N/block_n), ceil(K/block_k)]   float32, float16, bfloat16, float8_e4m3fn or
        float8_e8m0fnu
    zeros   None, or the shape of scales: uint8, float16, bfloat16 or float32
    table   None, or float32[2**bits] (1 to 4 bits)
    s0      None, or the second-level scale: float32, shape [] or [N]
    permutation   None, or int32[K]: stored column j is the logical column permutation[j], as GPTQ
        with desc_act orders them; groups are of stored columns

    In the layouts "panels" and "fragments", which `lowbit.prepack` makes for the kernels of the CPU
    and of CUDA devices, qweight is int32[panels, words], and scales and zeros of single rows are
    [panels, G, 64]. Files and pickles hold the canonical layout always.

    Build one with `lowbit.quantize_weight` or `QuantizedWeight.from_parts`. Raises ValueError or
    TypeError when the tensors do not fit the format, and names a format_version that is newer than
    this package reads.
    """

    qweight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    table: torch.Tensor | None
    s0: torch.Tensor | None
    format: WeightFormat
    permutation: torch.Tensor | None = None

    def __post_init__(self) -> None:
        where = "QuantizedWeight"
        object.__setattr__(self, "format", read_format(where, self.format))
        check_weight(where, *self.tensors, self.format)
        if self.permutation is not None:
            check_permutation(where, self.permutation, self.format, self.device)
            require_permutation(where, self.permutation, self.format.k)

    @classmethod
    def from_parts(
        cls,
        codes: torch.Tensor,
        scales: torch.Tensor,
        zeros: torch.Tensor | None = None,
        zero_kind: str | None = None,
        table: torch.Tensor | None = None,
        s0: torch.Tensor | float | None = None,
        block: tuple[int, int] | None = None,
        *,
        bits: int = 4,
        permutation: torch.Tensor | None = None,
    ) -> QuantizedWeight:
        """Build a weight from unpacked codes [N, K] (any integer dtype, 0 <= code < 2**bits).

        scales: [] or [1] (one for the tensor), [N] (one a row) or [N, G] (G groups along K), or
        with `block` = (rows, columns) one scale a block: [ceil(N/rows), ceil(K/columns)]. Without
        `block` G must divide K. zeros: as scales; `zero_kind` "code" (w = s*(c - z), the default
        with zeros) or "value" (w = s*c + v); without zeros "none" (the default) or "midpoint"
        (z = 2**(bits-1)). table: float[2**bits]. s0: second-level scale, a number or [N].
        permutation: integers [K], the logical column of each column of codes.
        """
        where = "QuantizedWeight.from_parts"
        require_tensor(where, "codes", codes)
        require_tensor(where, "scales", scales)
        require_integer(where, "bits", bits)
        codes = checked_codes(where, codes, bits)
        n, k = codes.shape
        if zeros is not None and zeros.shape != scales.shape:
            need = f"have the shape {list(scales.shape)} of scales"
            refuse(where, "zeros", need, list(zeros.shape))
        scales, block = scales_of_blocks(where, scales, n, k, block)
        if zero_kind is None:
            zero_kind = "none" if zeros is None else "code"
        if zero_kind not in ZERO_KINDS:
            refuse(where, "zero_kind", f"be one of {', '.join(ZERO_KINDS)}", repr(zero_kind))
        if zeros is not None:
            zeros = compact_integers(zeros).reshape(-1, scales.shape[1])[:n]
        if table is not None:
            table = table.to(device=codes.device, dtype=torch.float32)
        if s0 is not None:
            s0 = torch.as_tensor(s0, dtype=torch.float32, device=codes.device)
            s0 = s0.reshape(()) if s0.numel() == 1 and n != 1 else s0
        if permutation is not None:
            permutation = compact_permutation(where, permutation, k).to(codes.device)
        fmt = WeightFormat(FORMAT_VERSION, bits, n, k, *block, ZERO_KINDS.index(zero_kind))
        return cls(pack_codes(codes, bits), scales, zeros, table, s0, fmt, permutation)

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], prefix: str = "") -> QuantizedWeight:
        """The inverse of `to_tensors`: read a weight from a dict of named tensors."""
        where = "QuantizedWeight.from_tensors"
        if not isinstance(tensors, Mapping):
            refuse(where, "tensors", "be a dict", type(tensors).__name__, error=TypeError)
        for part in ("format", "qweight", "scales"):
            if prefix + part not in tensors:
                refuse(where, "tensors", f"hold {prefix + part}", ", ".join(tensors) or "none")
        numbers = read_stored_format(where, tensors[prefix + "format"])
        parts = {part: tensors.get(prefix + part) for part in PARTS}
        if parts["scales"].dtype == torch.uint8:  # as storable_scales gives float8_e8m0fnu
            parts["scales"] = parts["scales"].view(torch.float8_e8m0fnu)
        return cls(**parts, format=numbers)

    def to_tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Plain tensors by name, the format among them: for safetensors and state dicts.

        Always in the canonical layout. Scales of float8_e8m0fnu are given as their bytes, uint8
        (`storable_scales`).
        """
        tensors, fmt = canonical_parts(self.tensors, self.format)
        parts = zip(PARTS, (*tensors, self.permutation), strict=True)
        named = {prefix + part: own_memory(tensor) for part, tensor in parts if tensor is not None}
        named[prefix + "scales"] = storable_scales(named[prefix + "scales"])
        named[prefix + "format"] = torch.tensor(fmt, dtype=torch.int64)
        return named

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """(qweight, scales, zeros, table, s0): what every op takes, in its order."""
        return self.qweight, self.scales, self.zeros, self.table, self.s0

    @property
    def parts(self) -> tuple[torch.Tensor | None, ...]:
        """All tensors of the weight in the order of PARTS: `tensors`, then the permutation."""
        return (*self.tensors, self.permutation)

    @property
    def shape(self) -> torch.Size:
        """The logical shape [N, K]."""
        return torch.Size((self.format.n, self.format.k))

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.format.bits

    @property
    def group_size(self) -> int:
        """Columns of one scale group."""
        return self.format.block_k

    @property
    def zero_kind(self) -> str:
        """none, midpoint, code or value."""
        return ZERO_KINDS[self.format.zero_kind]

    @property
    def format_version(self) -> int:
        """The version of the storage format."""
        return self.format.version

    @property
    def layout(self) -> str:
        """canonical, panels or fragments."""
        return LAYOUTS[self.format.layout]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.qweight.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, metadata included."""
        return sum(t.numel() * t.element_size() for t in self.parts if t is not None)

    @property
    def effective_bits(self) -> float:
        """Bits a weight, with scales, zeros, table and padding counted."""
        return 8.0 * self.nbytes / max(1, self.format.n * self.format.k)

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The matrix [N, K] in float32, or rounded once to `dtype`. Plain torch: the reference.

        `lowbit.dequantize_weight` gives the same bits faster where a kernel is available.
        """
        w = logical_columns(dequantize_parts(*self.tensors, self.format), self.permutation)
        return w if dtype is None else w.to(dtype)

    def slice_rows(self, start: int, stop: int) -> QuantizedWeight:
        """Rows start..stop-1 as views of the same memory.

        With scale blocks of several rows, start must be on a block boundary, or the slice must lie
        in one block; in the packed layouts start and stop must be on panel boundaries (multiples of
        64, or N). ValueError otherwise.
        """
        fmt = self.format
        _check_range("slice_rows", start, stop, fmt.n, smallest=0)
        rows, blocks = slice(start, stop), self._slice_of_blocks(start, stop)
        block_n = max(1, min(fmt.block_n, stop - start))
        if fmt.layout != CANONICAL:
            rows = _slice_of_panels(start, stop, fmt.n)
            blocks = rows if fmt.block_n == 1 else blocks
            block_n = fmt.block_n  # whether it is 1 tells how the scales lie
        zeros = None if self.zeros is None else self.zeros[blocks]
        s0 = self.s0 if self.s0 is None or self.s0.dim() == 0 else self.s0[start:stop]
        parts = self.qweight[rows], self.scales[blocks], zeros, self.table, s0, self.permutation
        return _make(parts, fmt._replace(n=stop - start, block_n=block_n))

    def _slice_of_blocks(self, start: int, stop: int) -> slice:
        block_n = self.format.block_n
        first, last = start // block_n, -(-stop // block_n)
        if start % block_n and last - first > 1:
            need = f"start on a boundary of the {block_n}-row scale blocks"
            refuse("slice_rows", "start", need, start)
        return slice(first, first if start == stop else last)

    def slice_columns(self, start: int, stop: int) -> QuantizedWeight:
        """Columns start..stop-1; start must be on a group boundary (ValueError otherwise).

        Views of the same memory where the codes of the slice start and end on whole words of a
        single plane; else the codes (not the scales) are packed anew. ValueError in the packed
        layouts and for a permuted weight, whose groups hold no range of logical columns.
        """
        fmt, where = self.format, "slice_columns"
        _check_range(where, start, stop, fmt.k, smallest=1)
        require_layout(where, fmt, "canonical", remedy="slice unpack(weight)")
        if self.permutation is not None:
            refuse(where, "permutation", "be None", f"a permutation of {fmt.k} columns")
        if start % fmt.block_k:
            need = f"start on a boundary of the {fmt.block_k}-column groups"
            refuse(where, "start", need, start)
        groups = slice(start // fmt.block_k, -(-stop // fmt.block_k))
        zeros = None if self.zeros is None else self.zeros[:, groups]
        codes = self._slice_code_columns(start, stop)
        parts = codes, self.scales[:, groups], zeros, self.table, self.s0, None
        block_k = min(fmt.block_k, stop - start)
        return _make(parts, fmt._replace(k=stop - start, block_k=block_k))

    def _slice_code_columns(self, start: int, stop: int) -> torch.Tensor:
        bits = self.format.bits
        if len(PLANE_WIDTHS[bits]) == 1 and not (start * bits % 32 or stop * bits % 32):
            return self.qweight[:, start * bits // 32 : stop * bits // 32]
        codes = unpack_codes(self.qweight, bits, self.format.k)
        return pack_codes(codes[:, start:stop], bits)

    def with_codes(self, codes: torch.Tensor, layout: str) -> QuantizedWeight:
        """This weight with its codes in another layout; scales and zeros follow. Unchecked."""
        tensors, fmt = parts_with_codes(codes, self.tensors, self.format, LAYOUTS.index(layout))
        return _make((*tensors, self.permutation), fmt)

    def to(self, *args: Any, **kwargs: Any) -> QuantizedWeight:
        """Move to a device: the arguments of Tensor.to without a dtype (TypeError with one)."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None:
            need = "name a device only, because a cast would change the weight's value"
            remedy = "use dequantize(dtype) for a floating-point copy"
            refuse("QuantizedWeight.to", "dtype", need, dtype_name(dtype), remedy, TypeError)
        if device is None:
            return self
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def _map(self, fn) -> QuantizedWeight:
        return _make((t if t is None else fn(t) for t in self.parts), self.format)

    def __copy__(self) -> QuantizedWeight:
        return _make(self.parts, self.format)

    def __deepcopy__(self, memo: dict) -> QuantizedWeight:
        if self.format.layout == PANELS and id(self.qweight) not in memo:
            memo[id(self.qweight)] = copy_on_huge_pages(self.qweight)
        return self._map(lambda t: copy.deepcopy(t, memo))

    def __reduce__(self):
        tensors, fmt = canonical_parts(self.tensors, self.format)
        parts = [t if t is None else own_memory(t) for t in (*tensors, self.permutation)]
        if parts[1].element_size() == 1:  # pickle of float8 tensors fails in torch 2.13
            parts[1] = parts[1].view(torch.uint8)
        return _rebuild, (*parts, SCALE_DTYPES.index(self.scales.dtype), tuple(fmt))

    def __repr__(self) -> str:
        fmt = self.format
        element = "table" if self.table is not None else "uint"
        permuted = "" if self.permutation is None else ", permuted"
        return (
            f"QuantizedWeight({fmt.n}x{fmt.k}, {element}{fmt.bits}, block {fmt.block_n}x"
            f"{fmt.block_k}, zeros {self.zero_kind}, scales {dtype_name(self.scales.dtype)}, "
            f"{self.effective_bits:.2f} bits, {self.layout}, {self.device}{permuted})"
        )


def require_quantized(where: str, argument: str, value: Any) -> None:
    """TypeError unless the value is a QuantizedWeight."""
    if not isinstance(value, QuantizedWeight):
        remedy = "make one with lowbit.quantize_weight"
        refuse(where, argument, "be a QuantizedWeight", type(value).__name__, remedy, TypeError)


def storable_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales as files hold them: float8_e8m0fnu, which safetensors 0.8 cannot read, as uint8."""
    return scales.view(torch.uint8) if scales.dtype == torch.float8_e8m0fnu else scales


def _rebuild(qweight, scales, zeros, table, s0, permutation, scale_dtype: int, numbers):
    fmt = read_stored_format("QuantizedWeight", numbers)
    scales = scales.view(SCALE_DTYPES[scale_dtype])
    return QuantizedWeight(qweight, scales, zeros, table, s0, fmt, permutation)


def _check_range(where: str, start: int, stop: int, size: int, smallest: int) -> None:
    if not 0 <= start <= stop <= size or stop - start < smallest:
        need = f"lie within 0..{size}" + (" and hold a column" if smallest else "")
        refuse(where, "(start, stop)", need, (start, stop))


def _slice_of_panels(start: int, stop: int, n: int) -> slice:
    if any(row % PANEL_ROWS and row != n for row in (start, stop)):
        need = f"lie on boundaries of the {PANEL_ROWS}-row panels"
        refuse("slice_rows", "(start, stop)", need, (start, stop), "slice unpack(weight)")
    return slice(panel_count(start), panel_count(stop))


def _make(parts: Iterable[Any], fmt: Sequence[int]) -> QuantizedWeight:
    """A weight of parts that were checked before, or that are no tensors at all."""
    weight = object.__new__(QuantizedWeight)
    for part, tensor in zip((*PARTS, "format"), (*parts, WeightFormat(*fmt)), strict=True):
        object.__setattr__(weight, part, tensor)
    return weight


def _flatten(weight: QuantizedWeight):
    return list(weight.parts), weight.format


def _flatten_with_keys(weight: QuantizedWeight):
    keys = (torch.utils._pytree.GetAttrKey(part) for part in PARTS)
    return list(zip(keys, weight.parts, strict=True)), weight.format


torch.utils._pytree.register_pytree_node(
    QuantizedWeight,
    _flatten,
    _make,  # unchecked: transformations put other things than tensors in the leaves
    serialized_type_name="lowbit.QuantizedWeight",
    flatten_with_keys_fn=_flatten_with_keys,
    to_dumpable_context=list,
    from_dumpable_context=lambda numbers: WeightFormat(*numbers),
)
torch.serialization.add_safe_globals([_rebuild])
