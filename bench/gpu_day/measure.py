"""`lowbit bench` of one op into a file; a failure where a kernel that must be there has no figures.

`lowbit bench` itself shows a backend that cannot run and passes: on a laptop that is no mistake.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from lowbit import cli
from lowbit.bench import saved
from lowbit.bench.rows import OWN, Row, by


def main(argv: list[str] | None = None) -> int:
    """All options but --must go to `lowbit bench`."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.measure")
    parser.add_argument("file", type=Path)
    parser.add_argument("op")
    parser.add_argument("--must", required=True, help="the backend that must have figures")
    args, options = parser.parse_known_args(argv)
    args.file.unlink(missing_ok=True)
    status = cli.main(["bench", args.op, *options, "-o", "json", "--out", str(args.file)])
    if not args.file.is_file():
        return status or 1
    rows = saved.read(args.file).rows
    told = [figure(case, args.must) for case in by(rows, lambda row: row.case).values()]
    print("; ".join(text for text, _ in told) or "no case was timed")
    return status or int(not told or not all(passed for _, passed in told))


def figure(rows: list[Row], backend: str) -> tuple[str, bool]:
    """(the backend's time beside those of peers in one phrase, whether it has one)."""
    own = next((row for row in rows if row.backend.startswith(f"{OWN}{backend}")), None)
    if own is None or not own.samples:
        return f"{rows[0].case}: no figures of {backend} ({own.note if own else 'no row'})", False
    share = own.share_of_bandwidth
    of_bandwidth = "" if share is None else f", {share:.0%} of bandwidth"
    peers = [row for row in rows if not row.own and row.samples]
    beside = "".join(f", {row.backend} {_microseconds(row)}" for row in peers)
    return f"{own.case}: {_microseconds(own)}{of_bandwidth}{beside}", True


def _microseconds(row: Row) -> str:
    return f"{statistics.median(row.samples) * 1e6:.1f} us"


if __name__ == "__main__":
    sys.exit(main())
