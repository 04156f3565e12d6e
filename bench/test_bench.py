"""The cases of `lowbit bench` under pytest-benchmark: pytest bench --benchmark-only.

Each entry is checked before it is timed, as in `lowbit bench`; pytest-benchmark's own options save
and compare runs.
"""

import functools

import pytest

from lowbit.bench import runner
from lowbit.bench.entries import Layer, Workload, entry_of

PLAN = runner.Plan(layers=runner.QUICK_LAYERS, rows=runner.ROWS)
CASES = [case for layer in PLAN.layers for case in PLAN.cases(*layer)]


@functools.lru_cache(maxsize=1)
def layer_of(spec):
    return Layer.make(spec, PLAN.device)


@pytest.mark.parametrize("name", PLAN.names())
@pytest.mark.parametrize("case", CASES, ids=runner.label)
def test_bench(benchmark, case, name):
    shown, entry = entry_of(Workload(case, layer_of(case.weight)), name)
    if isinstance(entry, str):
        pytest.skip(f"{shown}: {entry}")
    benchmark.group = runner.label(case)
    with entry.context():
        benchmark(entry.call, *entry.operands)
