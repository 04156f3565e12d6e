"""`lowbit compare A.json B.json`: what got faster or slower between two runs."""

from __future__ import annotations

from pathlib import Path

from lowbit.bench import arguments, report, saved
from lowbit.bench.compare import (
    THRESHOLD,
    VERDICTS,
    Comparison,
    compare,
    only_in_one,
    summary,
)

_COLUMNS = (
    "case",
    "threads",
    "backend",
    "mode",
    "A us",
    "B us",
    "B / A",
    "99 %",
    "verdict",
    "note",
)


def add(commands) -> None:
    """The command and its options."""
    command = commands.add_parser("compare", help="two results of bench: faster, slower or same")
    command.add_argument("a", type=Path, metavar="A", help="a file of `lowbit bench -o json`")
    command.add_argument("b", type=Path, metavar="B", help="the one to judge")
    command.add_argument(
        "--threshold",
        type=arguments.percent,
        default=THRESHOLD,
        help="difference that matters, in percent; default 5",
    )
    command.add_argument("--only", metavar="TEXT", default="", help="backends that contain this")
    arguments.add_list(command, "--fail-on", VERDICTS)
    command.set_defaults(run=_run)


def _run(args) -> int:
    """1 if a verdict of --fail-on was reached, or if nothing could be compared."""
    a, b = saved.read(args.a), saved.read(args.b)
    found = [c for c in compare(a, b, args.threshold) if args.only in c.after.backend]
    print(f"A: {a.title}\nB: {b.title}")
    if a.machine != b.machine:
        print("the machines differ: a difference may be theirs")
    print()
    report.show(_COLUMNS, map(_cells, found))
    for name, rows in only_in_one(a, b).items():
        if rows:
            print(f"\nonly in {name}: {'; '.join(rows)}")
    print(f"\n{summary(found)}")
    return int(not found or any(c.verdict in args.fail_on for c in found))


def _cells(c: Comparison) -> tuple[str, ...]:
    low, high = c.interval
    times = (f"{row.median * 1e6:.1f}" for row in (c.before, c.after))
    facts = (c.after.case, str(c.after.threads), c.after.backend, c.after.mode)
    return *facts, *times, f"{c.ratio:.3f}", f"{low:.3f}..{high:.3f}", c.verdict, c.note
