"""Which rows of a result file a picture shows, and under which names."""

from __future__ import annotations

from lowbit.bench.rows import Row, by


def products(rows: list[Row]) -> list[Row]:
    """Timed rows of matrix products; of rows that were timed in several runs, the one with peers.

    Only rows of the op and the bit width that most rows have: one picture compares like with like.
    """
    found = [row for row in rows if row.samples and row.m and row.bytes]
    for fact in (lambda row: row.op, lambda row: row.code_bits):
        groups = by(found, fact)
        found = max(groups.values(), key=len) if groups else []
    runs = by(found, lambda row: row.run)
    companions = {run: len({row.backend for row in group}) for run, group in runs.items()}
    found.sort(key=lambda row: companions[row.run])
    unique = {(row.case, row.backend, row.mode, row.threads): row for row in found}
    return sorted(unique.values(), key=lambda row: (row.m, not row.own, row.mode, row.backend))


def most_threads(rows: list[Row]) -> list[Row]:
    """The rows of the largest thread count that has peers, or of the largest."""
    counts = {row.threads for row in rows if not row.own} or {row.threads for row in rows}
    return [row for row in rows if row.threads == max(counts, default=0)]


def name(row: Row) -> str:
    """The backend, or `lowbit` with the mode."""
    if not row.own:
        return row.backend
    backend = row.backend.partition(" (")[0]
    return " ".join(part for part in (backend.removesuffix(" cpu"), row.mode) if part)
