"""QuantizedWeight: the value that quantized matmuls take (weight_format.py says what it means)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from lowbit.errors import dtype_name, refuse, require_integer, require_tensor
from lowbit.formats.memory import own_memory
from lowbit.formats.packing import PLANE_WIDTHS, pack_codes, unpack_codes
from lowbit.formats.weight_format import (
    FORMAT_VERSION,
    PARTS,
    SCALE_DTYPES,
    ZERO_KINDS,
    WeightFormat,
    check_weight,
    dequantize_parts,
    read_format,
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", read_format("QuantizedWeight", self.format))
        check_weight("QuantizedWeight", *self.tensors, self.format)

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
    ) -> QuantizedWeight:
        """Build a weight from unpacked codes [N, K] (any integer dtype, 0 <= code < 2**bits).

        scales: [] or [1] (one for the tensor), [N] (one a row) or [N, G] (G groups along K), or
        with `block` = (rows, columns) one scale a block: [ceil(N/rows), ceil(K/columns)]. Without
        `block` G must divide K. zeros: as scales; `zero_kind` "code" (w = s*(c - z), the default
        with zeros) or "value" (w = s*c + v); without zeros "none" (the default) or "midpoint"
        (z = 2**(bits-1)). table: float[2**bits]. s0: second-level scale, a number or [N].
        """
        where = "QuantizedWeight.from_parts"
        require_tensor(where, "codes", codes)
        require_tensor(where, "scales", scales)
        require_integer(where, "bits", bits)
        codes = _checked_codes(where, codes, bits)
        n, k = codes.shape
        if zeros is not None and zeros.shape != scales.shape:
            need = f"have the shape {list(scales.shape)} of scales"
            refuse(where, "zeros", need, list(zeros.shape))
        scales, block = _scales_of_blocks(where, scales, n, k, block)
        if zero_kind is None:
            zero_kind = "none" if zeros is None else "code"
        if zero_kind not in ZERO_KINDS:
            refuse(where, "zero_kind", f"be one of {', '.join(ZERO_KINDS)}", repr(zero_kind))
        if zeros is not None:
            zeros = _compact_integers(zeros).reshape(-1, scales.shape[1])[:n]
        if table is not None:
            table = table.to(device=codes.device, dtype=torch.float32)
        if s0 is not None:
            s0 = torch.as_tensor(s0, dtype=torch.float32, device=codes.device)
            s0 = s0.reshape(()) if s0.numel() == 1 and n != 1 else s0
        fmt = WeightFormat(FORMAT_VERSION, bits, n, k, *block, ZERO_KINDS.index(zero_kind))
        return cls(pack_codes(codes, bits), scales, zeros, table, s0, fmt)

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], prefix: str = "") -> QuantizedWeight:
        """The inverse of `to_tensors`: read a weight from a dict of named tensors."""
        where = "QuantizedWeight.from_tensors"
        if not isinstance(tensors, Mapping):
            refuse(where, "tensors", "be a dict", type(tensors).__name__, error=TypeError)
        for part in ("format", "qweight", "scales"):
            if prefix + part not in tensors:
                refuse(where, "tensors", f"hold {prefix + part}", ", ".join(tensors) or "none")
        numbers = read_format(where, tensors[prefix + "format"])
        parts = {part: tensors.get(prefix + part) for part in PARTS}
        if parts["scales"].dtype == torch.uint8:  # as storable_scales gives float8_e8m0fnu
            parts["scales"] = parts["scales"].view(torch.float8_e8m0fnu)
        return cls(**parts, format=numbers)

    def to_tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Plain tensors by name, the format among them: for safetensors and state dicts.

        Scales of float8_e8m0fnu are given as their bytes, uint8 (`storable_scales`).
        """
        parts = zip(PARTS, self.tensors, strict=True)
        named = {prefix + part: own_memory(tensor) for part, tensor in parts if tensor is not None}
        named[prefix + "scales"] = storable_scales(named[prefix + "scales"])
        named[prefix + "format"] = torch.tensor(self.format, dtype=torch.int64)
        return named

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """(qweight, scales, zeros, table, s0): what the ops take, in their order."""
        return self.qweight, self.scales, self.zeros, self.table, self.s0

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
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.qweight.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, metadata included."""
        return sum(t.numel() * t.element_size() for t in self.tensors if t is not None)

    @property
    def effective_bits(self) -> float:
        """Bits a weight, with scales, zeros, table and padding counted."""
        return 8.0 * self.nbytes / max(1, self.format.n * self.format.k)

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The matrix [N, K] in float32, or rounded once to `dtype`. Plain torch: the reference.

        `lowbit.dequantize_weight` gives the same bits faster where a kernel is available.
        """
        w = dequantize_parts(*self.tensors, self.format)
        return w if dtype is None else w.to(dtype)

    def slice_rows(self, start: int, stop: int) -> QuantizedWeight:
        """Rows start..stop-1 as views of the same memory.

        With scale blocks of several rows, start must be on a block boundary, or the slice must lie
        in one block; ValueError otherwise.
        """
        fmt = self.format
        _check_range("slice_rows", start, stop, fmt.n, smallest=0)
        first, last = start // fmt.block_n, -(-stop // fmt.block_n)
        last = first if start == stop else last
        if start % fmt.block_n and last - first > 1:
            need = f"start on a boundary of the {fmt.block_n}-row scale blocks"
            refuse("slice_rows", "start", need, start)
        block_n = max(1, min(fmt.block_n, stop - start))
        s0 = self.s0 if self.s0 is None or self.s0.dim() == 0 else self.s0[start:stop]
        zeros = None if self.zeros is None else self.zeros[first:last]
        fmt = fmt._replace(n=stop - start, block_n=block_n)
        return QuantizedWeight(
            self.qweight[start:stop], self.scales[first:last], zeros, self.table, s0, fmt
        )

    def slice_columns(self, start: int, stop: int) -> QuantizedWeight:
        """Columns start..stop-1; start must be on a group boundary (ValueError otherwise).

        Views of the same memory where the codes of the slice start and end on whole words of a
        single plane; else the codes (not the scales) are packed anew.
        """
        fmt = self.format
        _check_range("slice_columns", start, stop, fmt.k, smallest=1)
        if start % fmt.block_k:
            need = f"start on a boundary of the {fmt.block_k}-column groups"
            refuse("slice_columns", "start", need, start)
        first, last = start // fmt.block_k, -(-stop // fmt.block_k)
        zeros = None if self.zeros is None else self.zeros[:, first:last]
        sliced = fmt._replace(k=stop - start, block_k=min(fmt.block_k, stop - start))
        return QuantizedWeight(
            self._slice_code_columns(start, stop),
            self.scales[:, first:last],
            zeros,
            self.table,
            self.s0,
            sliced,
        )

    def _slice_code_columns(self, start: int, stop: int) -> torch.Tensor:
        bits = self.format.bits
        if len(PLANE_WIDTHS[bits]) == 1 and not (start * bits % 32 or stop * bits % 32):
            return self.qweight[:, start * bits // 32 : stop * bits // 32]
        codes = unpack_codes(self.qweight, bits, self.format.k)
        return pack_codes(codes[:, start:stop], bits)

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
        return QuantizedWeight(*(t if t is None else fn(t) for t in self.tensors), self.format)

    def __deepcopy__(self, memo: dict) -> QuantizedWeight:
        return self._map(lambda t: copy.deepcopy(t, memo))

    def __reduce__(self):
        tensors = [t if t is None else own_memory(t) for t in self.tensors]
        if tensors[1].element_size() == 1:  # pickle of float8 tensors fails in torch 2.13
            tensors[1] = tensors[1].view(torch.uint8)
        return _rebuild, (*tensors, SCALE_DTYPES.index(self.scales.dtype), tuple(self.format))

    def __repr__(self) -> str:
        fmt = self.format
        element = "table" if self.table is not None else "uint"
        return (
            f"QuantizedWeight({fmt.n}x{fmt.k}, {element}{fmt.bits}, block {fmt.block_n}x"
            f"{fmt.block_k}, zeros {self.zero_kind}, scales {dtype_name(self.scales.dtype)}, "
            f"{self.effective_bits:.2f} bits, {self.device})"
        )


def require_quantized(where: str, argument: str, value: Any) -> None:
    """TypeError unless the value is a QuantizedWeight."""
    if not isinstance(value, QuantizedWeight):
        remedy = "make one with lowbit.quantize_weight"
        refuse(where, argument, "be a QuantizedWeight", type(value).__name__, remedy, TypeError)


def storable_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales as files hold them: float8_e8m0fnu, which safetensors 0.8 cannot read, as uint8."""
    return scales.view(torch.uint8) if scales.dtype == torch.float8_e8m0fnu else scales


def _rebuild(qweight, scales, zeros, table, s0, scale_dtype: int, numbers) -> QuantizedWeight:
    fmt = read_format("QuantizedWeight", numbers)
    scales = scales.view(SCALE_DTYPES[scale_dtype])
    return QuantizedWeight(qweight, scales, zeros, table, s0, fmt)


def _check_range(where: str, start: int, stop: int, size: int, smallest: int) -> None:
    if not 0 <= start <= stop <= size or stop - start < smallest:
        need = f"lie within 0..{size}" + (" and hold a column" if smallest else "")
        refuse(where, "(start, stop)", need, (start, stop))


def _checked_codes(where: str, codes: torch.Tensor, bits: int) -> torch.Tensor:
    if bits not in PLANE_WIDTHS:
        refuse(where, "bits", "be 1 to 8", bits)
    if codes.dim() != 2 or codes.is_floating_point() or codes.is_complex():
        got = f"{dtype_name(codes.dtype)} with {codes.dim()} dimensions"
        refuse(where, "codes", "be a 2-D integer tensor", got)
    if not codes.shape[1]:
        refuse(where, "codes", "have at least one column", list(codes.shape))
    if codes.numel() and not 0 <= codes.min().item() <= codes.max().item() < 1 << bits:
        got = f"{codes.min().item()} to {codes.max().item()}"
        refuse(where, "codes", f"lie in 0..{(1 << bits) - 1}", got)
    return codes.to(torch.uint8)


def _scales_of_blocks(where, scales, n, k, block):
    """Scales as [row blocks, groups] and the block (rows, columns) of each."""
    if block is None:
        if scales.numel() == 1 and scales.dim() <= 1:
            return scales.reshape(1, 1)[:n], (max(1, n), k)
        scales = scales.reshape(-1, 1) if scales.dim() == 1 else scales
        if scales.dim() != 2 or scales.shape[0] != n or not scales.shape[1]:
            refuse(where, "scales", f"have shape [], [{n}] or [{n}, G]", list(scales.shape))
        if k % scales.shape[1]:
            remedy = "pass block=(rows, columns)"
            refuse(where, "scales", f"have a G that divides K={k}", scales.shape[1], remedy)
        return scales, (1, k // scales.shape[1])
    rows, columns = block
    if rows < 1 or columns < 1:
        refuse(where, "block", "be at least 1 by 1", list(block))
    shape = (-(-n // rows), -(-k // columns))
    if tuple(scales.shape) != shape:
        refuse(where, "scales", f"have shape {list(shape)}", list(scales.shape))
    return scales, (rows, columns)


def _compact_integers(zeros: torch.Tensor) -> torch.Tensor:
    if zeros.is_floating_point() or zeros.dtype == torch.uint8:
        return zeros
    if zeros.numel() and not 0 <= zeros.min().item() <= zeros.max().item() <= 255:
        return zeros.float()
    return zeros.to(torch.uint8)


def _flatten(weight: QuantizedWeight):
    return list(weight.tensors), weight.format


def _flatten_with_keys(weight: QuantizedWeight):
    keys = (torch.utils._pytree.GetAttrKey(part) for part in PARTS)
    return list(zip(keys, weight.tensors, strict=True)), weight.format


def _unflatten(tensors, fmt) -> QuantizedWeight:
    # Transformations put other things than tensors in the leaves, so nothing is checked here.
    weight = object.__new__(QuantizedWeight)
    for part, tensor in zip((*PARTS, "format"), (*tensors, WeightFormat(*fmt)), strict=True):
        object.__setattr__(weight, part, tensor)
    return weight


torch.utils._pytree.register_pytree_node(
    QuantizedWeight,
    _flatten,
    _unflatten,
    serialized_type_name="lowbit.QuantizedWeight",
    flatten_with_keys_fn=_flatten_with_keys,
    to_dumpable_context=list,
    from_dumpable_context=lambda numbers: WeightFormat(*numbers),
)
torch.serialization.add_safe_globals([_rebuild])
