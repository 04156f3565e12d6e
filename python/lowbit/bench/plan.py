"""What `lowbit bench` is asked to time, as data."""

from __future__ import annotations

import dataclasses

import torch

from lowbit import registry
from lowbit.bench import check
from lowbit.bench.cases import AXES, LINEAR, WITHOUT_X, Case
from lowbit.bench.entries import peers
from lowbit.bench.weight_specs import WeightSpec
from lowbit.errors import dtype_name
from lowbit.formats.numerics import default_mode

# (N, K) of the linear layers of 7B and 8B language models.
LAYERS = ((4096, 4096), (11008, 4096), (4096, 11008), (14336, 4096), (1024, 4096))
ROWS = (1, 4, 16, 128)
QUICK_LAYERS, QUICK_ROWS = ((4096, 4096),), (1, 16)
# Up to this many rows the weight is read from memory for every call of a real model.
DECODE_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Plan:
    """A cross product of layers, rows, bits, modes and thread counts, and how to time it.

    modes: empty for the op's default. prepack: our weights as `lowbit.prepack` lays them out, where
    a kernel reads that layout. backends: backends and peers; empty for all. run: a name that the
    rows get.
    """

    op: str = LINEAR
    layers: tuple[tuple[int, int], ...] = LAYERS
    rows: tuple[int, ...] = ROWS
    bits: tuple[int, ...] = (4,)
    group_size: int = 128
    dtype: torch.dtype = torch.float32
    modes: tuple[str, ...] = ()
    symmetric: bool = False
    prepack: bool = True
    backends: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    min_time: float = 0.5
    device: str = "cpu"
    quick: bool = False
    run: str = ""

    def weights(self) -> list[WeightSpec]:
        """The weight of each layer and bit width."""
        zeros = "midpoint" if self.symmetric else "code"
        block_k = 0 if self.group_size == -1 else self.group_size
        return [
            WeightSpec(n, k, bits, block_k, zeros=zeros, source="quantized")
            for n, k in self.layers
            for bits in self.bits
        ]

    def groups(self, weight: WeightSpec) -> list[list[Case]]:
        """The cases on a weight; those of a group differ in the mode alone and are interleaved."""
        rows = self.rows if "rows" in AXES[self.op] else self.rows[:1]
        modes = self.modes or (default_mode(self.device, self.dtype),)
        modes = modes if "mode" in AXES[self.op] else ("exact",)
        return [[Case(self.op, weight, (m,), self.dtype, mode) for mode in modes] for m in rows]

    def names(self) -> tuple[str, ...]:
        """The backends and peers to time."""
        return self.backends or default_names(self.op, self.device)

    def cold(self, case: Case) -> bool:
        """Whether calls of the case take turns through copies of the weight (cold.py).

        All do on a GPU: its memory is fast enough that many rows may be bound by it too.
        """
        many = case.op in WITHOUT_X or case.m > DECODE_ROWS
        return not self.quick and (self.device == "cuda" or not many)


def default_names(op: str, device: str) -> tuple[str, ...]:
    """Backends with a kernel of the op, best first, and the peers that have the op.

    The reference is left out where a native kernel runs: it takes most of the time to say little.
    """
    names = [row.backend for row in registry.OPS[op].rows]
    if any(registry.BACKENDS[n].device == device and not check.unavailable(n) for n in names):
        names.remove("reference")
    return (*names, *(name for name, adapter in peers().items() if op in adapter.OPS))


def label(case: Case) -> str:
    """M, N, K, codes, group and dtype of a case: what its entries share."""
    w = case.weight
    m = "" if case.op in WITHOUT_X else f"M={case.m} "
    return f"{m}N={w.n} K={w.k} {w.bits}b g{w.block_k or w.k} {dtype_name(case.dtype)}"
