"""`lowbit check` of the GPU's kernels, in shares on all cores: Triton compiles most cases anew."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import torch

from bench.gpu_day.kernels import BACKENDS, listed
from lowbit.bench import sweep
from lowbit.bench.sweep import Tally

_MOST = 16  # processes; each one takes some of the GPU's memory


def main(argv: list[str] | None = None) -> int:
    """1 when a case failed, and when a kernel of the registry passed none."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.every_case")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--case", help="only cases whose name contains this")
    args = parser.parse_args(argv)
    tallies = check(listed(args.backends.split(",")), args.case)
    print(*(failure for tally in tallies for failure in tally.failures), sep="\n")
    print("; ".join(map(told, tallies)) or f"no kernel on {args.backends}")
    return int(not tallies or any(t.failures or not t.passed for t in tallies))


def check(kernels: list[tuple[str, str]], pattern: str | None) -> list[Tally]:
    """A tally for each kernel, of the cases whose name contains the pattern."""
    count = min(len(os.sched_getaffinity(0)), _MOST)
    work = functools.partial(share, kernels, pattern, count)
    # A process that has used CUDA cannot be forked.
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        shares = list(pool.map(work, range(count)))
    return [functools.reduce(added, tallies) for tallies in zip(*shares, strict=True)]


def share(
    kernels: list[tuple[str, str]], pattern: str | None, count: int, index: int
) -> list[Tally]:
    """The tallies of one process: each `count`-th case from `index` on."""
    torch.set_num_threads(1)
    tallies = [next(sweep.tallies([op], [backend], [])) for op, backend in kernels]
    for tally in tallies:
        tally.run(sweep.cases_of(tally.op, pattern)[index::count], seed=0)
    return tallies


def added(a: Tally, b: Tally) -> Tally:
    """The tally of two shares."""
    return Tally(
        a.op,
        a.backend,
        passed=a.passed + b.passed,
        declined=a.declined + b.declined,
        worst=max(a.worst, b.worst),
        note=a.note,
        failures=a.failures + b.failures,
    )


def told(tally: Tally) -> str:
    """In one phrase."""
    name = f"{tally.op} on {tally.backend}"
    if tally.note:
        return f"{name}: {tally.note}"
    return f"{name}: {tally.passed} passed, {len(tally.failures)} failed, {tally.declined} declined"


if __name__ == "__main__":
    sys.exit(main())
