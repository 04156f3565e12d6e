"""Which GPU kernels of the package there are, as the registry has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lowbit import registry
from lowbit.bench import check
from lowbit.bench.cases import AXES, CASES, Case

BACKENDS = ("cuda", "triton")
# An op may have a kernel for few rows and another for many.
_MANY = 16


def listed(backends: Sequence[str] = BACKENDS) -> list[tuple[str, str]]:
    """(op, backend) of every kernel, whether it can run here or not."""
    return [
        (op, row.backend)
        for op, definition in registry.OPS.items()
        for row in definition.rows
        if row.backend in backends
    ]


def shapes_of(op: str, backend: str) -> list[Case]:
    """A case that the kernel covers, of every mode, with few rows and with many.

    Where it can be, one whose columns end within a word.
    """
    chosen = {}
    for case in sorted(CASES[op], key=lambda case: case.weight.k % 32 == 0):
        kind = tuple((case.m > _MANY) if axis == "rows" else case.mode for axis in AXES[op])
        if kind not in chosen and _has_work(case) and _covers(op, backend, case):
            chosen[kind] = case
    return list(chosen.values())


def _has_work(case: Case) -> bool:
    return case.weight.n > 1 and (case.m > 0 or "rows" not in AXES[case.op])


def _covers(op: str, backend: str, case: Case) -> bool:
    """Asked of the row alone, so that a machine without a GPU gives the same answer."""
    problem = registry.OPS[op].problem(*case.make())
    on_device = problem._replace(device=torch.device(check.device_of(backend)))
    (row,) = (row for row in registry.OPS[op].rows if row.backend == backend)
    return row.decline(on_device) is None
