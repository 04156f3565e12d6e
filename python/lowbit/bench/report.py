"""Tables as Markdown, or on a terminal with rich; among them the one of what is supported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from lowbit import registry
from lowbit.bench.cases import CASES

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
    """The lines of the support table; the reference, which covers all, is not among them, nor are
    backends that only tests ask for."""
    return [
        _support_row(op, row)
        for op in CASES  # in an order of its own: that of registry.OPS follows from imports
        for row in registry.OPS[op].rows
        if registry.BACKENDS[row.backend].rank > 0
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
