"""The results of `lowbit bench` as Markdown, CSV and JSON, each with what it takes to repeat it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowbit import __version__
from lowbit.bench import gpu, info
from lowbit.bench.bars.evaluators import Outcome
from lowbit.bench.plan import DECODE_ROWS
from lowbit.bench.report import markdown
from lowbit.bench.rows import Row

SCHEMA_VERSION = 2
# Column -> (how a table shows it, the number)
_FIGURES: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "p25 us": (".1f", lambda row: row.fast * 1e6),
    "median us": (".1f", lambda row: row.median * 1e6),
    "IQR us": (".1f", lambda row: row.spread * 1e6),
    "GB/s": (".1f", lambda row: _rate(row.bytes, row)),
    "of bandwidth": (".0%", lambda row: row.share_of_bandwidth),
    "GFLOP/s": (".1f", lambda row: _rate(row.flops, row)),
    "of peak": (".0%", lambda row: row.share_of_peak),
    "x torch fp32": (".2f", lambda row: row.speedup),
    "bits/weight": (".2f", lambda row: row.bits or None),
    "weight err": (".2e", lambda row: row.weight_error if row.bits else None),
    "compute err": (".1e", lambda row: row.compute_error if row.bits else None),
    "dropped": ("d", lambda row: row.dropped),
}
COLUMNS = ("case", "threads", "backend", "mode", "arithmetic", *_FIGURES, "note")
RUN_COLUMNS = ("waited", "load", "device", "machine", "lowbit", "commit", "torch", "repro")
_VERSIONS = ("lowbit", "commit", "torch", "triton", "python")


@dataclasses.dataclass(frozen=True)
class Run:
    """The rows of a run and how they came about.

    load: the load average before and after. peaks: thread count -> instruction -> operations a
    second. outcomes: of the bars.
    """

    rows: list[Row]
    device: str
    argv: list[str]
    load: tuple[float | None, float | None]
    peaks: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    @property
    def repro(self) -> str:
        """The command line that repeats the run."""
        return shlex.join(["lowbit", *self.argv])

    @property
    def machine(self) -> str:
        """The processor or GPU."""
        return gpu.described() if self.device == "cuda" else info.cpu_model()

    @property
    def threads(self) -> list[int]:
        """The thread counts of the rows."""
        return sorted({row.threads for row in self.rows})


def _rate(amount: int, row: Row) -> float | None:
    """Billions a second; None for a row that has no such amount."""
    return amount / row.median / 1e9 if amount else None


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    figures = [""] * len(_FIGURES)
    if row.samples:
        values = ((form, number(row)) for form, number in _FIGURES.values())
        figures = ["-" if value is None else format(value, form) for form, value in values]
    facts = (row.case, str(row.threads), row.backend, row.mode, row.arithmetic)
    return *facts, *figures, row.note


def heading(run: Run) -> str:
    """One line: versions, machine, threads, load, probed limits, how the samples were taken."""
    commit = info.commit()
    parts = [f"lowbit {__version__}" + (f" ({commit})" if commit else "")]
    parts += [f"torch {torch.__version__}", run.machine]
    parts += [f"threads {', '.join(map(str, run.threads))}"]
    if None not in run.load:
        parts += ["load average {:.2f} before, {:.2f} after".format(*run.load)]
    timed = [row for row in run.rows if row.samples and row.bandwidth]
    if timed:
        bandwidths = [row.bandwidth / 1e9 for row in timed]
        parts += [f"read bandwidth {min(bandwidths):.1f}-{max(bandwidths):.1f} GB/s"]
        parts += [_peaks_text(timed)]
        parts += [_temperature(timed)]
    return " | ".join(parts)


def _temperature(rows: list[Row]) -> str:
    """Which rows read their weight from memory."""
    if not any(row.cold for row in rows):
        return "warm weights"
    some = "" if all(row.cold for row in rows) else f" up to M={DECODE_ROWS}"
    return f"cold weights{some}"


def _peaks_text(rows: list[Row]) -> str:
    """The peak of each arithmetic of the rows, at the most threads."""
    best = {row.arithmetic: row.peak for row in sorted(rows, key=lambda row: row.peak) if row.peak}
    peaks = [f"{name} peak {peak / 1e9:.0f} Gop/s" for name, peak in sorted(best.items())]
    return ", ".join(peaks) or "peaks not known"


def as_markdown(run: Run) -> str:
    """Heading, table and the line that repeats the run."""
    return f"{heading(run)}\n\n{markdown(COLUMNS, map(cells, run.rows))}\n\nrepro: {run.repro}\n"


def as_csv(run: Run) -> str:
    """A line of names and a line a row: numbers unrounded, shares as fractions, unknowns empty.

    Each line tells of the run as well, so that files of several runs can be put together.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS + RUN_COLUMNS)
    told = (run.load[0], run.device, run.machine, __version__, info.commit(), torch.__version__)
    for row in run.rows:
        numbers = [number(row) if row.samples else None for _, number in _FIGURES.values()]
        facts = (row.case, row.threads, row.backend, row.mode, row.arithmetic)
        line = (*facts, *numbers, row.note, row.waited)
        writer.writerow((*line, *told, run.repro))
    return out.getvalue()


def as_json(run: Run) -> str:
    """Everything that tells of the figures, raw samples in seconds included; no paths."""
    facts = info.info()
    for about_the_installation in ("libraries", "backends"):
        facts.pop(about_the_installation, None)
    versions = {name: facts.pop(name) for name in _VERSIONS if name in facts}
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "argv": run.argv,
        "repro": run.repro,
        "device": run.device,
        "threads": run.threads,
        "load": dict(zip(("before", "after"), run.load, strict=True)),
        "versions": versions,
        "machine": facts,
        "peaks": run.peaks,
        "bars": [dataclasses.asdict(outcome) for outcome in run.outcomes],
        "rows": [dataclasses.asdict(row) for row in run.rows],
    }
    return json.dumps(document, indent=1, default=str) + "\n"


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json}


def write(path: Path, text: str) -> None:
    """Write a file all at once: whoever reads it finds the old text or the new one."""
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
