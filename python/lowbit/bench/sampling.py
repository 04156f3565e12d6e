"""Samples of several entries taken in turns, A B A B, with a bandwidth probe around each.

The bandwidth of a shared machine can flip between two states within seconds, so a memory-bound time
means nothing by itself. A sample counts when the probes right before and right after it agree, and
it keeps their mean; otherwise it is dropped and taken again.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

from lowbit.bench import huge_pages
from lowbit.bench.cold import rotation
from lowbit.bench.entries import Entry
from lowbit.bench.probe import timed

MIN_SAMPLES, MAX_SAMPLES = 5, 2000
_AGREEMENT = 0.15
# A sample is a loop of calls, a memory-bound one as long as the probes beside it. Calls that do not
# count come first, for as long again: the memory of a machine that has rested gains speed for some
# ten milliseconds, and no probe starts from rest.
_SAMPLE_SECONDS, _PROBED_SAMPLE_SECONDS = 1e-3, 12e-3
# How long threads are watched at a time, at most how often, and the share of a core that is rest.
_LOOK_SECONDS, _LOOKS, _IDLE = 1e-3, 50, 0.1
# An entry gives up after this many dropped samples more than three for each accepted one.
_PATIENCE = 20


@dataclasses.dataclass
class Samples:
    """Accepted samples in seconds a call, the bandwidth around each, and how many were dropped.

    note: what to mind about the way they were taken.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    probes: list[float] = dataclasses.field(default_factory=list)
    dropped: int = 0
    note: str = ""


def agree(before: float, after: float) -> bool:
    """Whether two probes tell of the same state of the machine."""
    return max(before, after) <= (1 + _AGREEMENT) * min(before, after)


class _Turn:
    """An entry that takes its turns."""

    def __init__(self, entry: Entry, cold: bool, device: str, sample_seconds: float):
        self._spent, self._entry, self._device = 0.0, entry, device
        with entry.context():
            calls = rotation(entry, cold, device)
            self.samples = Samples(note=calls.note)
            self._work, self._products = calls.work, calls.count
            self._work()
            once = timed(self._work, 1, device)
        self._repeats = max(1, round(sample_seconds / max(once, 1e-9)))

    def wants_more(self, min_time: float) -> bool:
        taken, dropped = len(self.samples.seconds), self.samples.dropped
        if dropped > _PATIENCE + 3 * taken:
            return False
        return taken < MIN_SAMPLES or (self._spent < min_time and taken < MAX_SAMPLES)

    def take(self) -> float:
        """Seconds a product."""
        if self._device == "cpu":
            _let_threads_rest()
        with self._entry.context():
            timed(self._work, self._repeats, self._device)  # wakes threads and memory
            return timed(self._work, self._repeats, self._device) / self._products

    def accept(self, seconds: float, probes: tuple[float, ...]) -> None:
        if probes and not agree(*probes):
            self.samples.dropped += 1
            return
        self.samples.seconds.append(seconds)
        self.samples.probes += [statistics.harmonic_mean(probes)] if probes else []
        self._spent += seconds * self._repeats * self._products


def _let_threads_rest() -> None:
    """Wait until no thread of the process runs.

    Workers of OpenMP spin for milliseconds after a call, and would take a core from an entry whose
    library has threads of its own.
    """
    for _ in range(_LOOKS):
        spent, start = time.process_time(), time.perf_counter()
        time.sleep(_LOOK_SECONDS)
        if time.process_time() - spent < _IDLE * (time.perf_counter() - start):
            return


def interleave(
    entries: Sequence[Entry],
    min_time: float,
    *,
    cold: bool = False,
    device: str = "cpu",
    read: Callable[[], float] | None = None,
) -> list[Samples]:
    """Samples of each entry, of min_time seconds together. read: gives the bandwidth now.

    The probe behind a sample is also the one before the next.
    """
    sample_seconds = _PROBED_SAMPLE_SECONDS if read else _SAMPLE_SECONDS
    turns = [_Turn(entry, cold, device, sample_seconds) for entry in entries]
    # What is copied here lies on huge pages already; what libraries allocate does not.
    if cold and device == "cpu" and any(entry.another or entry.graph for entry in entries):
        huge_pages.collapse()
    before = read() if read else None
    while waiting := [turn for turn in turns if turn.wants_more(min_time)]:
        for turn in waiting:
            seconds = turn.take()
            after = read() if read else None
            turn.accept(seconds, (before, after) if read else ())
            before = after
    return [turn.samples for turn in turns]
