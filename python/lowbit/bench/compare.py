"""Which rows of one result file are faster or slower in another: a verdict from raw samples.

For each row that both files have, the ratio of the medians B / A is given a 99 % interval by a
block bootstrap: neighbouring samples share the state of the machine, so blocks of them are drawn,
not single ones. With a threshold t of practical difference (5 %):

    faster     the whole interval is below 1 / (1 + t)
    slower     the whole interval is above 1 + t
    same       the whole interval is within 1 / (1 + t) .. 1 + t
    undecided  else, and with fewer than five samples on a side

Where both sides have bandwidth probes that differ by more than 15 %, the machine was in two states:
then the verdict counts only if the samples in units of their probes give the same one. The draws
are seeded by the row's name, so the same files give the same verdicts.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import zlib
from collections.abc import Iterator

import numpy as np

from lowbit.bench.rows import Row
from lowbit.bench.sampling import MIN_SAMPLES, agree
from lowbit.bench.saved import Saved

FASTER, SLOWER, SAME, UNDECIDED = VERDICTS = ("faster", "slower", "same", "undecided")
THRESHOLD = 0.05
_CONFIDENCE = 0.99
_DRAWS = 2000
# A compute error that grew by this factor is told beside the verdict.
_COARSER = 1.5

Key = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row of both files. ratio: of the medians, B / A, with its interval."""

    before: Row
    after: Row
    ratio: float
    interval: tuple[float, float]
    verdict: str
    note: str


def compare(a: Saved, b: Saved, threshold: float = THRESHOLD) -> Iterator[Comparison]:
    """The comparisons of the rows that both files have samples of, in the order of B."""
    before = _timed(a)
    for key, row in _timed(b).items():
        if key in before:
            yield _compare_rows(key, before[key], row, threshold)


def only_in_one(a: Saved, b: Saved) -> dict[str, list[str]]:
    """File name -> the rows that have samples in that file alone."""
    left, right = _timed(a), _timed(b)
    return {
        "A": [" ".join(key) for key in left if key not in right],
        "B": [" ".join(key) for key in right if key not in left],
    }


def _timed(saved: Saved) -> dict[Key, Row]:
    return {_key(row): row for row in saved.rows if row.samples}


def _key(row: Row) -> Key:
    """What makes rows of two files the same. Of our backends the instruction set is left out."""
    backend = row.backend.partition(" (")[0] if row.own else row.backend
    parts = (row.run, row.op, row.case, backend, row.mode, f"threads={row.threads}")
    return tuple(part for part in parts if part)


def _compare_rows(key: Key, before: Row, after: Row, threshold: float) -> Comparison:
    ratio = after.median / before.median
    rng = np.random.default_rng(zlib.crc32(" ".join(key).encode()))
    notes = []
    if min(len(before.samples), len(after.samples)) < MIN_SAMPLES:
        interval, verdict = (0.0, math.inf), UNDECIDED
        notes.append(f"fewer than {MIN_SAMPLES} samples")
    else:
        interval = ratio_interval(before.samples, after.samples, rng)
        verdict = judge(interval, threshold)
    if before.probes and after.probes and not agree(before.bandwidth, after.bandwidth):
        notes.append(f"bandwidth {before.bandwidth / 1e9:.1f} -> {after.bandwidth / 1e9:.1f} GB/s")
        probed = ratio_interval(_probed(before), _probed(after), rng)
        verdict = verdict if judge(probed, threshold) == verdict else UNDECIDED
    if after.compute_error > _COARSER * before.compute_error:
        notes.append(f"compute error {before.compute_error:.1e} -> {after.compute_error:.1e}")
    return Comparison(before, after, ratio, interval, verdict, "; ".join(notes))


def _probed(row: Row) -> list[float]:
    return [seconds * probe for seconds, probe in zip(row.samples, row.probes, strict=True)]


def judge(interval: tuple[float, float], threshold: float) -> str:
    """The verdict on an interval of the ratio."""
    low, high = interval
    least, most = 1.0 / (1.0 + threshold), 1.0 + threshold
    if high < least:
        return FASTER
    if low > most:
        return SLOWER
    return SAME if least <= low and high <= most else UNDECIDED


def ratio_interval(
    before: list[float], after: list[float], rng: np.random.Generator
) -> tuple[float, float]:
    """The central 99 % of the ratios of the medians of resampled samples."""
    ratios = _medians(after, rng) / _medians(before, rng)
    tail = (1.0 - _CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return float(low), float(high)


def _medians(samples: list[float], rng: np.random.Generator) -> np.ndarray:
    """Of samples put together from blocks that start anywhere and wrap around at the end."""
    values = np.asarray(samples)
    length = max(1, round(math.sqrt(len(values))))
    starts = rng.integers(0, len(values), (_DRAWS, -(-len(values) // length)))
    places = (starts[..., None] + np.arange(length)) % len(values)
    return np.median(values[places.reshape(_DRAWS, -1)[:, : len(values)]], axis=1)


def summary(comparisons: list[Comparison]) -> str:
    """The count of each verdict and the geometric mean of the ratios."""
    if not comparisons:
        return "no row has samples in both files"
    counts = [f"{sum(c.verdict == v for c in comparisons)} {v}" for v in VERDICTS]
    mean = statistics.geometric_mean(c.ratio for c in comparisons)
    return f"{', '.join(counts)}; geometric mean of B / A {mean:.3f}"
