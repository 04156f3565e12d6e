"""The cases of `lowbit bench` under pytest-benchmark: pytest bench --benchmark-only.

Each entry is checked before it is timed, as in `lowbit bench`; pytest-benchmark's own options save
and compare runs.
"""

import functools

import pytest

from lowbit.bench.entries import Layer, Workload, entry_of
from lowbit.bench.plan import QUICK_LAYERS, Plan, label

PLAN = Plan(layers=QUICK_LAYERS)
CASES = [case for weight in PLAN.weights() for cases in PLAN.groups(weight) for case in cases]


@functools.lru_cache(maxsize=1)
def layer_of(spec):
    return Layer.make(spec, PLAN.device)


@pytest.mark.parametrize("name", PLAN.names())
@pytest.mark.parametrize("case", CASES, ids=label)
def test_bench(benchmark, case, name):
    shown, entry = entry_of(Workload(case, layer_of(case.weight)), name)
    if isinstance(entry, str):
        pytest.skip(f"{shown}: {entry}")
    benchmark.group = label(case)
    with entry.context():
        benchmark(entry.call, *entry.operands)
