"""Tables: of timings, of what is supported, as Markdown, CSV, JSON or on a terminal with rich."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from lowbit import __version__, registry
from lowbit.bench import info
from lowbit.bench.cases import CASES
from lowbit.bench.runner import Row

SCHEMA_VERSION = 1
BENCH_COLUMNS = (
    "case",
    "threads",
    "backend",
    "median us",
    "IQR us",
    "GB/s",
    "of bandwidth",
    "GFLOP/s",
    "of fp32 peak",
    "x torch fp32",
    "bits/weight",
    "weight err",
    "compute err",
    "note",
)
SUPPORT_COLUMNS = (
    "op",
    "backend",
    "device",
    "x dtypes",
    "elements",
    "zero kinds",
    "modes",
    "layouts",
    "evidence",
)
# The field of an op's Problem that a column of the support table shows.
_FIELDS = ("dtype", "element", "zeros", "mode", "layout")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text."""
    table = [tuple(columns), *map(tuple, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in table]
    body.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(body)


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: with rich on a terminal where it is installed, else as Markdown."""
    rows = list(rows)
    if sys.stdout.isatty():
        try:
            import rich.console
            import rich.table
        except ImportError:
            pass
        else:
            table = rich.table.Table(*columns)
            for row in rows:
                table.add_row(*(rich.markup.escape(cell) for cell in row))
            rich.console.Console().print(table)
            return
    print(markdown(columns, rows))


def support_table() -> str:
    """What each kernel covers, from the capability rows: the table of the README."""
    return markdown(SUPPORT_COLUMNS, support_rows())


def support_rows() -> list[tuple[str, ...]]:
    """The lines of the support table; backends that only tests ask for are not among them."""
    return [
        _support_row(op, row)
        for op, definition in registry.OPS.items()
        for row in definition.rows
        if registry.BACKENDS[row.backend].rank >= 0
    ]


def _support_row(op: str, row: registry.Kernel) -> tuple[str, ...]:
    has_modes = "mode" in registry.OPS[op].problem(*CASES[op][0].make())._fields
    covers = {"mode": "all" if has_modes else "-"}
    covers |= {field: _values(values) for field, values in row.covers.items()}
    cells = (covers.get(field, "all") for field in _FIELDS)
    return op, row.backend, registry.BACKENDS[row.backend].device or "any", *cells, row.evidence


def _values(values: Iterable[Any]) -> str:
    """The values in one cell; a run such as uint1, uint2, uint3 becomes uint1-3."""
    runs: list[list[Any]] = []
    for name in (str(value).removeprefix("torch.") for value in values):
        stem, number = re.fullmatch(r"(.*?)([1-8]?)", name).groups()
        last = runs[-1] if runs else None
        if last and number and last[0] == stem and last[2] and int(number) == int(last[2]) + 1:
            last[2] = number
        else:
            runs.append([stem, number, number])
    return ", ".join(s + first + (f"-{last}" if last != first else "") for s, first, last in runs)


def bench_cells(row: Row) -> tuple[str, ...]:
    """A timed row as text."""
    if not row.samples:
        blanks = [""] * (len(BENCH_COLUMNS) - 4)
        return (row.case, str(row.threads), row.backend, *blanks, row.note)
    gbs, gflops = row.bytes / row.median / 1e9, row.flops / row.median / 1e9
    return (
        row.case,
        str(row.threads),
        row.backend,
        f"{row.median * 1e6:.1f}",
        f"{row.spread * 1e6:.1f}",
        f"{gbs:.1f}",
        f"{gbs * 1e9 / row.bandwidth:.0%}",
        f"{gflops:.1f}",
        f"{gflops * 1e9 / row.peak:.0%}",
        "-" if row.speedup is None else f"{row.speedup:.2f}",
        f"{row.bits:.2f}",
        f"{row.weight_error:.2e}",
        f"{row.compute_error:.1e}",
        row.note,
    )


def heading(rows: list[Row], device: str) -> str:
    """One line: versions, machine, threads, probed limits, and how the samples were taken."""
    commit = info.commit()
    parts = [f"lowbit {__version__}" + (f" ({commit})" if commit else "")]
    parts += [f"torch {torch.__version__}"]
    parts += [torch.cuda.get_device_name() if device == "cuda" else info.cpu_model()]
    threads = sorted({row.threads for row in rows})
    parts += [f"threads {', '.join(map(str, threads))}"]
    timed = [row for row in rows if row.samples]
    if timed:
        bandwidths = [row.bandwidth / 1e9 for row in timed]
        parts += [f"read bandwidth {min(bandwidths):.1f}-{max(bandwidths):.1f} GB/s"]
        parts += [f"fp32 peak {max(row.peak for row in timed) / 1e9:.0f} GFLOP/s"]
        parts += ["cold weights up to M=16" if any(row.cold for row in timed) else "warm weights"]
    return " | ".join(parts)


def as_markdown(rows: list[Row], device: str, repro: str) -> str:
    """Heading, table and the line that repeats the run."""
    table = markdown(BENCH_COLUMNS, map(bench_cells, rows))
    return f"{heading(rows, device)}\n\n{table}\n\nrepro: {repro}\n"


def as_csv(rows: list[Row], device: str, repro: str) -> str:
    """The cells of the table with a line of names."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(BENCH_COLUMNS)
    writer.writerows(map(bench_cells, rows))
    return out.getvalue()


def as_json(rows: list[Row], device: str, repro: str) -> str:
    """Everything, raw samples in seconds included."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "repro": repro,
        "device": device,
        "machine": info.info(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    return json.dumps(document, indent=1, default=str) + "\n"


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json}
