"""Row: one entry of one case with its raw samples, and the figures that follow from them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

OWN = "lowbit "  # how the names of our backends start


@dataclasses.dataclass
class Row:
    """A line of the table. `note` says why there are no samples, or what to mind about them.

    Times are seconds a call, rates are per second. probes: the read bandwidth around each sample,
    empty where the samples are not bound by memory. operations: what the peak counts, flops or, in
    the mode int8x2, twice that.
    """

    case: str
    backend: str
    threads: int
    op: str = ""
    mode: str = ""  # of our backends
    m: int = 0
    n: int = 0
    k: int = 0
    code_bits: int = 0
    run: str = ""
    gpu: str = ""  # name and driver; empty on a CPU
    cold: bool = False
    samples: list[float] = dataclasses.field(default_factory=list)
    probes: list[float] = dataclasses.field(default_factory=list)
    dropped: int = 0  # samples whose two probes differed
    bytes: int = 0  # weight, input and result, each once
    flops: int = 0
    operations: int = 0
    arithmetic: str = ""  # fp32, bf16 or int8: whose peak `peak` is
    bits: float = 0.0  # a weight, metadata included
    weight_error: float = 0.0
    compute_error: float = 0.0
    bandwidth: float = 0.0  # median of the probes of its samples, or of those around the case
    peak: float = 0.0  # operations a second; 0: not known
    speedup: float | None = None  # over torch fp32 in the same run
    waited: float | None = None  # share of the threads' time without a core, with all of the case
    note: str = ""
    failed: bool = False

    @property
    def own(self) -> bool:
        """Whether the row is of a backend of this package."""
        return self.backend.startswith(OWN)

    @property
    def layer(self) -> str:
        """NxK."""
        return f"{self.n}x{self.k}"

    @property
    def quantizes_activations(self) -> bool:
        """Whether the input is rounded to one plane of int8: faster, and coarser than bfloat16."""
        return self.arithmetic == "int8" and self.operations == self.flops

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.samples)

    @property
    def fast(self) -> float:
        """The 25th percentile in seconds."""
        return quartiles(self.samples)[0]

    @property
    def spread(self) -> float:
        """Interquartile range in seconds."""
        low, high = quartiles(self.samples)
        return high - low

    @property
    def limits(self) -> list[float]:
        """Least seconds of each sample: bytes at its own bandwidth or operations at the peak."""
        probes = self.probes or [self.bandwidth] * len(self.samples)
        arithmetic = self.operations / self.peak if self.peak else 0.0
        return [max(self.bytes / probe if probe else 0.0, arithmetic) for probe in probes]

    @property
    def share_of_bandwidth(self) -> float | None:
        """Of the bandwidth probed around each sample; the median.

        None for a product whose weight stays where it is: it may come from a cache.
        """
        if not self.bandwidth or (self.m and not self.cold):
            return None
        probes = self.probes or [self.bandwidth] * len(self.samples)
        pairs = zip(self.samples, probes, strict=True)
        return statistics.median(self.bytes / (seconds * probe) for seconds, probe in pairs)

    @property
    def share_of_peak(self) -> float | None:
        """Of the peak of its arithmetic; None where that is not known."""
        return self.operations / self.median / self.peak if self.peak else None


def by(rows: list[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """The rows by a key, in their order."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def quartiles(samples: list[float]) -> tuple[float, float]:
    """The 25th and 75th percentile; those of one sample are the sample."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
