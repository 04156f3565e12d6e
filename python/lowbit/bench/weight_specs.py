"""WeightSpec: a quantized weight as data, so that a case can name it and make it from a seed."""

from __future__ import annotations

import dataclasses
import math

import torch

from lowbit.errors import dtype_name
from lowbit.formats.layouts import pack_words, parts_with_codes
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.tables import element_table
from lowbit.formats.weight_format import LAYOUTS, WeightFormat
from lowbit.formats.weights import QuantizedWeight


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """A quantized weight [n, k] as data; 0 for a block side is the whole side."""

    n: int = 33
    k: int = 160
    bits: int = 4
    block_k: int = 32
    block_n: int = 1
    zeros: str = "none"
    zero_dtype: torch.dtype = torch.uint8
    scales: torch.dtype = torch.float16
    exponent: int = 0  # scales are about 2**exponent
    scale_nan: bool = False
    table: str = ""  # a name of formats.tables, or "random"
    s0: str = ""  # "", "tensor" or "rows"
    cut: str = ""  # "rows", "columns": a slice of a larger weight
    permuted: bool = False  # columns are stored in another order, as GPTQ with desc_act does
    layout: str = "canonical"
    source: str = "codes"  # "quantized": quantize_weight of a normal matrix, for timing

    def __str__(self) -> str:
        group = f"g{self.block_k or self.k}" + (f"x{self.block_n or 'N'}" * (self.block_n != 1))
        zeros = self.zeros
        if zeros in ("code", "value"):
            zeros += "." + dtype_name(self.zero_dtype)
        parts = [f"{self.table or 'uint'}{self.bits}", f"{self.n}x{self.k}", group, zeros]
        parts.append("s." + dtype_name(self.scales))
        parts += [f"2^{self.exponent}"] if self.exponent else []
        parts += ["nan"] if self.scale_nan else []
        parts += [f"s0.{self.s0}"] if self.s0 else []
        parts += [f"cut.{self.cut}"] if self.cut else []
        parts += ["permuted"] if self.permuted else []
        parts += [self.layout] if self.layout != "canonical" else []
        return "-".join(parts)

    def original(self, seed: int) -> torch.Tensor:
        """The float matrix that a weight of the source "quantized" was made from."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.n, self.k, generator=generator) * self.k**-0.5

    def make(self, seed: int, device: str | torch.device = "cpu") -> QuantizedWeight:
        """The weight: the same tensors for the same seed."""
        weight = self._canonical(seed, device)
        if self.permuted:
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.k, generator=generator, dtype=torch.int32).to(device)
            weight = dataclasses.replace(weight, permutation=order)
        return weight if self.layout == "canonical" else in_layout(weight, self.layout)

    def _canonical(self, seed: int, device) -> QuantizedWeight:
        if self.source == "quantized":
            symmetric = self.zeros == "midpoint"
            options = {"bits": self.bits, "group_size": self.block_k or -1, "symmetric": symmetric}
            return quantize_weight(self.original(seed), **options).to(device)
        if not self.cut:
            return self._random(self.n, self.k, seed).to(device)
        return self._cut_from_larger(seed, device)

    def _cut_from_larger(self, seed: int, device) -> QuantizedWeight:
        rows = 2 * self.block_n if self.cut == "rows" else 0
        columns = 2 * self.block_k if self.cut == "columns" else 0
        n = rows + self.n + 3 * (self.cut == "rows")
        # Moved before it is cut: moving a view would make it contiguous.
        larger = self._random(n, columns + self.k + 96, seed).to(device)
        larger = larger.slice_rows(rows, rows + self.n)
        return larger.slice_columns(columns, columns + self.k)

    def _random(self, n: int, k: int, seed: int) -> QuantizedWeight:
        generator = torch.Generator().manual_seed(seed)
        block = (self.block_n or max(1, n), self.block_k or k)
        shape = (-(-n // block[0]), -(-k // block[1]))
        codes = torch.randint(0, 1 << self.bits, (n, k), generator=generator, dtype=torch.uint8)
        return QuantizedWeight.from_parts(
            codes,
            self._scales(shape, generator),
            self._zeros(shape, generator),
            self.zeros,
            self._table(generator),
            self._s0(n, generator),
            block,
            bits=self.bits,
        )

    def _scales(self, shape, generator) -> torch.Tensor:
        scales = (0.5 + torch.rand(shape, generator=generator)) * 2.0**self.exponent
        if self.scales == torch.float8_e8m0fnu:
            scales = torch.exp2(torch.round(torch.log2(scales)))
        if self.scale_nan and scales.numel():
            scales[-1, -1] = math.nan
        return scales.to(self.scales)

    def _zeros(self, shape, generator) -> torch.Tensor | None:
        if self.zeros not in ("code", "value"):
            return None
        zeros = torch.randint(0, 1 << self.bits, shape, generator=generator).float()
        if self.zero_dtype == torch.uint8:
            return zeros.to(torch.uint8)
        if self.zeros == "value":
            zeros = (zeros - 2.0 ** (self.bits - 1)) * 2.0**self.exponent
        else:
            zeros = zeros + 0.5
        return zeros.to(self.zero_dtype)

    def _table(self, generator) -> torch.Tensor | None:
        if not self.table:
            return None
        if self.table == "random":
            return torch.randn(1 << self.bits, generator=generator)
        return element_table(self.table)

    def _s0(self, n: int, generator) -> torch.Tensor | None:
        if not self.s0:
            return None
        return 0.5 + torch.rand(n if self.s0 == "rows" else (), generator=generator)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes."""
        return 4 * math.prod(self._format.code_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, scales, zeros and the permutation."""
        zero_bytes = self.zero_dtype.itemsize if self.zeros in ("code", "value") else 0
        groups = math.prod(self._format.stored_scale_shape)
        order = 4 * self.k * self.permuted
        return self.code_bytes + groups * (self.scales.itemsize + zero_bytes) + order

    @property
    def _format(self) -> WeightFormat:
        """What the shapes follow from; it has no zero kind."""
        block = self.block_n or max(1, self.n), self.block_k or self.k
        return WeightFormat(1, self.bits, self.n, self.k, *block, 0, LAYOUTS.index(self.layout))


def in_layout(weight: QuantizedWeight, name: str) -> QuantizedWeight:
    """The canonical weight in a packed layout, by the layout's definition instead of a kernel."""
    fmt, layout = weight.format, LAYOUTS.index(name)
    codes = weight.qweight.new_empty(fmt._replace(layout=layout).code_shape)
    pack_words(weight.qweight, fmt, layout, codes)
    tensors, fmt = parts_with_codes(codes, weight.tensors, fmt, layout)
    return QuantizedWeight(*tensors, fmt, weight.permutation)
