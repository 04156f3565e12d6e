"""What lowbit costs where there is nothing to compute: a call on a tiny weight, and the import."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import torch

from lowbit import registry
from lowbit.bench import sampling
from lowbit.bench.cases import LINEAR, Case
from lowbit.bench.entries import Entry
from lowbit.bench.plan import Plan
from lowbit.bench.rows import Row
from lowbit.bench.weight_specs import WeightSpec
from lowbit.formats.numerics import default_mode
from lowbit.ops.prepack_weight import prepack
from lowbit.ops.weight_only_linear import weight_only_linear

OVERHEAD = "overhead"
_WEIGHT = WeightSpec(8, 32, 4, 32, zeros="code")
_IMPORTS = 6
_IMPORT = """
import sys, time
sys.dont_write_bytecode = False
start = time.perf_counter()
import torch
between = time.perf_counter()
import lowbit
print(between - start, time.perf_counter() - between)
"""


def run(plan: Plan) -> Iterator[Row]:
    """Rows of a call by its ways in, on one thread in inference mode, and of the import."""
    yield from _calls(plan)
    yield from _imports(plan)


def _calls(plan: Plan) -> list[Row]:
    calls = ways()
    entries = [Entry(name, call, (), torch.empty(0)) for name, call in calls.items()]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            taken = sampling.interleave(entries, plan.min_time)
    finally:
        torch.set_num_threads(before)
    case = f"a call, M=1 N={_WEIGHT.n} K={_WEIGHT.k} {_WEIGHT.bits}b g{_WEIGHT.block_k}"
    return [_row(plan, case, name, s.seconds) for name, s in zip(calls, taken, strict=True)]


def ways() -> dict[str, Callable[[], torch.Tensor]]:
    """The same product through the chosen kernel, the public op, and the public function."""
    case = Case(LINEAR, _WEIGHT, (1,), mode=default_mode("cpu", torch.float32))
    weight = prepack(_WEIGHT.make(0))
    args = case.arguments(weight, seed=1)
    op, x, w = registry.OPS[LINEAR], args[0], weight.dequantize()
    backend = op.choose(op.problem(*args)).backend
    kernel = getattr(torch.ops.lowbit, f"{LINEAR}__{backend}").default
    return {
        "lowbit kernel": functools.partial(kernel, *args, op.allocate(*args)),
        "lowbit op": functools.partial(op.overload, *args),
        "lowbit call": functools.partial(weight_only_linear, x, weight),
        "torch fp32": functools.partial(torch.nn.functional.linear, x, w),
    }


def _imports(plan: Plan) -> list[Row]:
    """Each in a process of its own, with bytecode, as an installed package has it.

    The first, which writes the bytecode, is left out.
    """
    taken = []
    with tempfile.TemporaryDirectory() as bytecode:
        command = [sys.executable, "-X", f"pycache_prefix={bytecode}", "-c", _IMPORT]
        for _ in range(_IMPORTS + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken.append(tuple(map(float, done.stdout.split())))
    torch_alone, lowbit_above = zip(*taken[1:], strict=True)
    case = "import, above torch"
    rows = [_row(plan, case, "lowbit import", list(lowbit_above))]
    return [*rows, _row(plan, case, "torch import", list(torch_alone))]


def _row(plan: Plan, case: str, backend: str, samples: list[float]) -> Row:
    return Row(case, backend, 1, op=OVERHEAD, run=plan.run, samples=samples)
