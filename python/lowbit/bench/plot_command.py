"""`lowbit plot results.json -o FOLDER`: pictures of a run."""

from __future__ import annotations

from pathlib import Path

from lowbit.bench import plots, saved


def add(commands) -> None:
    """The command and its options."""
    command = commands.add_parser("plot", help="pictures of a result of bench, as SVG and PNG")
    command.add_argument("results", type=Path, help="a file of `lowbit bench -o json`")
    command.add_argument("-o", "--out", type=Path, default=Path("plots"), metavar="FOLDER")
    command.set_defaults(run=_run)


def _run(args) -> int:
    for path in plots.draw(saved.read(args.results), args.out):
        print(path)
    return 0
