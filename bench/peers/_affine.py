"""Our integer codes with a scale and a zero point for each group of a row, for other packings."""

from __future__ import annotations

import dataclasses

import torch

from lowbit.bench.entries import Workload
from lowbit.formats.packing import unpack_codes
from lowbit.formats.weights import QuantizedWeight


@dataclasses.dataclass(frozen=True)
class Affine:
    """A weight w = (codes - zeros) * scales, group by group of columns.

    codes: uint8 [N, K]; scales: float32 [N, G]; the last group of a row may be shorter. zeros: as
    scales, or None where all are the middle of the codes.
    """

    bits: int
    group: int
    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    @classmethod
    def of(cls, weight: QuantizedWeight) -> Affine:
        """The numbers of a weight that `unsupported` has nothing against."""
        codes = unpack_codes(weight.qweight, weight.bits, weight.format.k)
        s0 = 1.0 if weight.s0 is None else weight.s0.reshape(-1, 1)
        zeros = None if weight.zeros is None else weight.zeros.float()
        return cls(weight.bits, weight.group_size, codes, weight.scales.float() * s0, zeros)

    def padded_codes(self) -> torch.Tensor:
        """uint8 [N, G, group]; the columns behind the last are the code 0."""
        n, groups = self.scales.shape
        padding = groups * self.group - self.codes.shape[1]
        return torch.nn.functional.pad(self.codes, (0, padding)).view(n, groups, self.group)


def unsupported(workload: Workload, bits: tuple[int, ...]) -> str | None:
    """Why the weight is no Affine of such codes on the CPU; None if it is one."""
    weight = workload.weight
    if workload.x.device.type != "cpu":
        return "it runs on cpu"
    if weight.bits not in bits or weight.table is not None:
        return f"it takes integer codes of {' or '.join(map(str, bits))} bits"
    if weight.zero_kind not in ("code", "midpoint"):
        return "it takes codes with zero points"
    if weight.format.block_n != 1:
        return "it takes scales of single rows"
    if weight.permutation is not None:
        return "it takes columns in their order"
    return None


def fractional_zeros(workload: Workload) -> str | None:
    """Why the zero points are not integers; None if they are."""
    zeros = workload.weight.zeros
    if zeros is None or zeros.dtype == torch.uint8:
        return None
    return "it takes zero points that are codes"


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes [..., L] of 2, 4 or 8 bits, the first of a byte in its low bits, padded by 0."""
    each = 8 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each))
    fields = codes.unflatten(-1, (-1, each)).unbind(-1)
    packed = fields[0].clone()
    for i, field in enumerate(fields[1:], 1):
        packed |= field << (i * bits)
    return packed


def unpack(packed: torch.Tensor, bits: int, length: int) -> torch.Tensor:
    """The codes [..., length] that `pack` put into the bytes."""
    fields = [(packed >> (i * bits)) & ((1 << bits) - 1) for i in range(8 // bits)]
    return torch.stack(fields, -1).flatten(-2)[..., :length]


@dataclasses.dataclass(frozen=True)
class Packed:
    """Constants of a model: uint8 [N, G, bytes], float32 [N, G], uint8 [N, bytes] or None.

    The zero points are one row [1, bytes] where a library packs them without regard to rows.
    """

    bits: int
    group: int
    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    @classmethod
    def of(cls, affine: Affine, zero_rows: int) -> Packed:
        """The constants; zero_rows: rows of which the zero points start a byte (N or 1)."""
        zeros = affine.zeros
        if zeros is not None:
            zeros = pack(zeros.to(torch.uint8).reshape(zero_rows, -1), affine.bits)
        codes = pack(affine.padded_codes(), affine.bits)
        return cls(affine.bits, affine.group, codes, affine.scales.contiguous(), zeros)

    def rolled(self, rows: int) -> Packed:
        """The same rows further down: a copy that no library takes for the constant it has."""
        codes, scales = (part.roll(rows, 0) for part in (self.codes, self.scales))
        zeros = self._unpacked_zeros()
        if zeros is not None:
            zeros = pack(zeros.roll(rows, 0).reshape(len(self.zeros), -1), self.bits)
        return dataclasses.replace(self, codes=codes, scales=scales, zeros=zeros)

    def dequantized(self, k: int) -> torch.Tensor:
        """float32 [N, k] from the packed bytes."""
        codes, zeros = unpack(self.codes, self.bits, self.group).float(), self._unpacked_zeros()
        if zeros is None:
            zeros = torch.full_like(self.scales, 1 << (self.bits - 1))
        values = (codes - zeros.float().unsqueeze(-1)) * self.scales.unsqueeze(-1)
        return values.flatten(1)[:, :k].contiguous()

    def _unpacked_zeros(self) -> torch.Tensor | None:
        if self.zeros is None:
            return None
        each = self.scales.numel() // len(self.zeros)
        return unpack(self.zeros, self.bits, each).reshape(self.scales.shape)
