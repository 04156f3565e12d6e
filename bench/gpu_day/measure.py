"""`lowbit bench` of each op with a GPU kernel. A failure where a kernel has no figures.

`lowbit bench` itself shows a backend that cannot run and passes: on a laptop that is no mistake.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bench.gpu_day.kernels import BACKENDS, listed
from lowbit import cli
from lowbit.bench import saved
from lowbit.bench.arguments import INTERRUPTED
from lowbit.bench.cases import AXES, LINEAR
from lowbit.bench.rows import OWN, Row, by

ARCHIVE = "bench.zip"  # of what `lowbit bench` writes of each op
_LAYER = "N=4096;K=14336"
_SMALL = "--device cpu --quick --min-time 1e-3 --backends reference,torch_fp32,torch_copy"


def main(argv: list[str] | None = None) -> int:
    """1 when a result was wrong or a kernel has no figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.measure")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="the reference, on the CPU")
    args = parser.parse_args(argv)
    must = ("reference",) if args.small else BACKENDS
    told, statuses = [], []
    (args.folder / ARCHIVE).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as made:
        for op in ops():
            statuses.append(bench(op, options(op, args.small), Path(made)))
            told.append(judged(op, must, Path(made)))
            keep(op, Path(made), args.folder)
            if statuses[-1] == INTERRUPTED:
                break
    print("; ".join(text for text, _ in told) or "no op has a GPU kernel")
    return int(not told or any(statuses) or not all(there for _, there in told))


def keep(op: str, made: Path, folder: Path) -> None:
    """All ops share a file: the machine gives back few, however many ops there will be."""
    if _file(op, made).is_file():
        with zipfile.ZipFile(folder / ARCHIVE, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.write(_file(op, made), _file(op, made).name)


def ops() -> list[str]:
    """Those with a GPU kernel. The product first: most depends on its figures."""
    names = dict.fromkeys(op for op, _ in listed())
    return sorted(names, key=lambda op: op != LINEAR)


def options(op: str, small: bool) -> list[str]:
    """What `lowbit bench` is asked to time of an op."""
    many_rows = "rows" in AXES[op]
    if small:
        shape = "M=2;N=64;K=128" if many_rows else "N=64;K=128"
        return ["--dtype", "bf16", "--shapes", shape, *_SMALL.split()]
    shape, bits = (f"M=1,16,256;{_LAYER}", "4") if many_rows else (_LAYER, "2,4,8")
    return ["--dtype", "bf16", "--shapes", shape, "--bits", bits, "--device", "cuda"]


def bench(op: str, options: list[str], folder: Path) -> int:
    """The exit status of `lowbit bench`, which writes what it timed also when it is interrupted."""
    file = _file(op, folder)
    file.unlink(missing_ok=True)
    return cli.main(["bench", op, *options, "-o", "json", "--out", str(file)])


def judged(op: str, must: Sequence[str], folder: Path) -> tuple[str, bool]:
    """(the figures in one phrase, whether those of each kernel are there)."""
    if not _file(op, folder).is_file():
        return f"{op}: no figures", False
    cases = by(saved.read(_file(op, folder)).rows, lambda row: row.case)
    wanted = [backend for name, backend in listed(must) if name == op]
    figures = [figure(rows, backend) for rows in cases.values() for backend in wanted]
    text = "; ".join(text for text, _ in figures) or "no case was timed"
    return f"{op}: {text}", bool(figures) and all(there for _, there in figures)


def _file(op: str, folder: Path) -> Path:
    return folder / f"bench_{op}.json"


def figure(rows: list[Row], backend: str) -> tuple[str, bool]:
    """(the backend's time beside those of peers in one phrase, whether it has one)."""
    own = next((row for row in rows if row.backend.startswith(f"{OWN}{backend}")), None)
    if own is None or not own.samples:
        return f"{rows[0].case}: no figures of {backend} ({own.note if own else 'no row'})", False
    share = own.share_of_bandwidth
    of_bandwidth = "" if share is None else f", {share:.0%} of bandwidth"
    peers = [row for row in rows if not row.own and row.samples]
    beside = "".join(f", {row.backend} {_microseconds(row)}" for row in peers)
    return f"{own.case}: {backend} {_microseconds(own)}{of_bandwidth}{beside}", True


def _microseconds(row: Row) -> str:
    return f"{statistics.median(row.samples) * 1e6:.1f} us"


if __name__ == "__main__":
    sys.exit(main())
