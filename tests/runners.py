"""Where kernels can run on this machine's CPU: the reference, and each instruction set."""

import contextlib
from dataclasses import replace
from functools import cache

import torch

from lowbit import native, registry
from lowbit.bench.check import declined

CPU = torch.device("cpu")
CPU_LIBRARY_MISSING = registry.BACKENDS["cpu"].missing(CPU)


def _instruction_sets() -> list[str]:
    """The instruction sets that the CPU library runs on this machine."""
    runnable = []
    for isa in () if CPU_LIBRARY_MISSING else native.ISAS:
        with contextlib.suppress(RuntimeError), native.use_isa(isa):
            runnable.append(isa)
    return runnable


# Every place on this machine where a kernel can run: "reference", "cpu-scalar", "cpu-avx2", ...
RUNNERS = ("reference", *(f"cpu-{isa}" for isa in _instruction_sets()))


@contextlib.contextmanager
def running_on(runner: str):
    """Forces the runner in this thread."""
    backend, _, isa = runner.partition("-")
    with registry.use_backend(backend), native.use_isa(isa) if isa else contextlib.nullcontext():
        yield backend


def smallest(case):
    """A case of the same kind to the choice of kernels, which sees no shapes, and made at once."""
    weight = replace(case.weight, n=1, k=1, block_n=1, block_k=1, cut="")
    return replace(case, weight=weight, rows=(1,), view="contiguous", nonfinite=False)


@cache
def _runners_of(op, case):
    args = case.make()
    return [name for name in RUNNERS if not declined(op, name.partition("-")[0], args)]


def covered(op, cases):
    """(op, case, runner) for every case and every runner whose row covers it."""
    for case in cases:
        yield from ((op, case, runner) for runner in _runners_of(op, smallest(case)))


def dealt(op, cases):
    """As `covered`, but each case has one of the instruction sets between the least and the best.

    They take turns. `lowbit check` runs every case on each of them.
    """
    between = RUNNERS[2:-1]
    for number, case in enumerate(cases):
        left_out = {name for i, name in enumerate(between) if (number - i) % len(between)}
        yield from (run for run in covered(op, [case]) if run[2] not in left_out)
