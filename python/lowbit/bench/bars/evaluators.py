"""The kinds of bars: each a function (bar, rows of its run, facts) -> outcomes, one a case.

Times are medians unless a kind says otherwise. A row of ours that could not be timed is a miss.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from lowbit.bench.rows import Row, by

Bar = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of the machine. peaks: thread count -> instruction -> operations a second."""

    cores: int
    peaks: dict[int, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A case of a bar. passed: None where the machine cannot tell, with the reason in measured."""

    bar: str
    case: str
    measured: str
    required: str
    passed: bool | None

    @property
    def verdict(self) -> str:
        """One word."""
        return {True: "pass", False: "FAIL", None: "n/a"}[self.passed]

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        return self.bar, self.case, self.measured, self.required, self.verdict


def limit(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """time <= factor * max(bytes / simultaneous probe, operations / peak) + plus_ms, by sample."""

    def judge(row: Row) -> Outcome:
        allowed = [bar["factor"] * least + bar["plus_ms"] * 1e-3 for least in row.limits]
        pairs = zip(row.samples, allowed, strict=True)
        share = statistics.median(seconds / most for seconds, most in pairs)
        required = f"{statistics.median(allowed) * 1e3:.3f} ms"
        measured = f"{row.median * 1e3:.3f} ms, {share:.2f} of it by sample"
        return Outcome(bar["name"], _name(row), measured, required, share <= 1.0)

    yield from (judge(row) if row.samples else _missed(bar, row) for row in rows if row.own)


def ahead(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """Our time is below that of each peer of the case that the bar compares with."""
    for case, group in by(rows, lambda row: row.case).items():
        ours = [row for row in group if row.own and row.samples]
        pairs = []
        for peer in (row for row in group if not row.own and row.samples):
            if rivals := [row for row in ours if _comparable(bar, row, peer)]:
                best = min(rivals, key=lambda row: row.median)
                pairs.append((best.median / peer.median, best, peer))
        if not pairs:
            yield Outcome(bar["name"], case, "no such peer was timed", "below each peer", False)
            continue
        ratio, best, peer = max(pairs, key=lambda pair: pair[0])
        measured = f"{best.mode}: {best.median * 1e3:.3f} ms"
        required = f"< {peer.median * 1e3:.3f} ms of {peer.backend}"
        yield Outcome(bar["name"], case, measured, required, ratio < 1.0)


def _comparable(bar: Bar, row: Row, peer: Row) -> bool:
    if bar["peers"] == "float activations":
        return not peer.quantizes_activations
    return row.compute_error <= bar["error_tolerance"] * peer.compute_error


def rate(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """GFLOP/s by number of rows, at the 25th percentile; other layers may stay a little below."""
    for row in _own_of_rows(rows, bar["gflops"]):
        floor = bar["gflops"][str(row.m)] * _allowance(bar, row)
        yield _rate_outcome(bar, row, floor, f"{floor:.0f} GFLOP/s")


def share(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """As rate, but of an instruction's peak; n/a where the CPU has a faster one (`unless`)."""
    for row in _own_of_rows(rows, bar["shares"]):
        peaks = facts.peaks.get(row.threads, {})
        if peaks.get(bar["unless"]):
            yield Outcome(bar["name"], _name(row), f"has {bar['unless']}", "", None)
            continue
        part = bar["shares"][str(row.m)] * _allowance(bar, row)
        peak = peaks.get(bar["instruction"], 0.0) / 1e9
        if peak:
            yield _rate_outcome(bar, row, part * peak, f"{part:.2f} of {peak:.0f} GFLOP/s")
        else:
            yield Outcome(bar["name"], _name(row), f"no {bar['instruction']}", "", None)


def _own_of_rows(rows: list[Row], table: dict[str, float]) -> list[Row]:
    return [row for row in rows if row.own and str(row.m) in table]


def _allowance(bar: Bar, row: Row) -> float:
    return 1.0 if [row.n, row.k] == bar["layer"] else 1.0 - bar["others_within"]


def _rate_outcome(bar: Bar, row: Row, floor: float, required: str) -> Outcome:
    if not row.samples:
        return _missed(bar, row)
    reached = row.flops / row.fast / 1e9
    return Outcome(bar["name"], _name(row), f"{reached:.0f} GFLOP/s", required, reached >= floor)


def bytes_(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """Time, in units of the simultaneous probe, in proportion to the bytes of `beside_bits`."""
    ours = [row for row in rows if row.own]
    for layer in by(ours, lambda row: (row.layer, row.mode)).values():
        base = next((row for row in layer if row.code_bits == bar["beside_bits"]), None)
        for row in (row for row in layer if row is not base):
            if base is None or not (base.samples and row.samples):
                yield _missed(bar, row)
                continue
            proportion = row.bytes / base.bytes
            ratio = _probed_time(row) / _probed_time(base)
            measured = f"{ratio:.2f} of {bar['beside_bits']} bits"
            required = f"{proportion:.2f} + {bar['within']:.0%}"
            passed = ratio <= proportion * (1.0 + bar["within"])
            yield Outcome(bar["name"], _name(row), measured, required, passed)


def _probed_time(row: Row) -> float:
    """The bytes that the machine could have read meanwhile; the median of the samples."""
    probes = row.probes or [row.bandwidth] * len(row.samples)
    return statistics.median(s * p for s, p in zip(row.samples, probes, strict=True))


def scaling(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """Time at the fewer threads over time at the more."""
    few, many = bar["threads"]
    for key, group in by([row for row in rows if row.own], lambda r: (r.case, r.mode)).items():
        if facts.cores < many:
            yield Outcome(bar["name"], " ".join(key), f"{facts.cores} cores", "", None)
            continue
        found = {row.threads: row for row in group if row.samples}
        if not {few, many} <= set(found):
            yield _missed(bar, group[0])
            continue
        gain = found[few].median / found[many].median
        required = f">= {bar['at_least']}"
        passed = gain >= bar["at_least"]
        yield Outcome(bar["name"], " ".join(key), f"{gain:.2f}", required, passed)


def time(bar: Bar, rows: list[Row], facts: Facts) -> Iterator[Outcome]:
    """Microseconds at most, by backend."""
    for backend, most in bar["at_most_us"].items():
        row = next((row for row in rows if row.backend == backend and row.samples), None)
        if row is None:
            yield Outcome(bar["name"], backend, "nothing", f"<= {most} us", False)
            continue
        reached = row.median * 1e6
        yield Outcome(bar["name"], backend, f"{reached:.1f} us", f"<= {most} us", reached <= most)


def _missed(bar: Bar, row: Row) -> Outcome:
    return Outcome(bar["name"], _name(row), row.note or "not timed", "a measurement", False)


def _name(row: Row) -> str:
    return " ".join(part for part in (row.case, row.mode) if part)


KINDS: dict[str, Callable[[Bar, list[Row], Facts], Iterator[Outcome]]] = {
    "limit": limit,
    "ahead": ahead,
    "rate": rate,
    "share": share,
    "bytes": bytes_,
    "scaling": scaling,
    "time": time,
}
