"""What bench/gpu_day.sh does with the kernels: none is left out, and what is wrong is told."""

import ast
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.gpu_day import (
    every_case,
    launches,
    measure,
    measure_examples,
)
from bench.gpu_day.examples import EXAMPLES
from bench.gpu_day.kernels import BACKENDS, listed, shapes_of
from bench.gpu_day.launches import EXAMPLE, Launch
from lowbit import registry
from lowbit.bench import check
from lowbit.bench.cases import BACKWARD, CASES, DEQUANTIZE, LINEAR, Case
from lowbit.bench.sweep import Tally
from lowbit.bench.weight_specs import WeightSpec

ROOT = Path(__file__).resolve().parents[1]
GEMM = next(example for example in EXAMPLES if example.name == "tiled_gemm")

# --- No kernel is left out -----------------------------------------------------------------------

CUDA_TEXTS = {"csrc/cuda": "cuda", "examples/cuda": EXAMPLE}


def kernels_in(root):
    """(name, backend) of every kernel in the texts of a tree."""
    for folder, backend in CUDA_TEXTS.items():
        for path in sorted((root / folder).glob("*.cu*")):
            for name in re.findall(r"\bLOWBIT_KERNEL\([^)]*\)\s*(\w+)\(", path.read_text()):
                yield name, backend
    for path in sorted((root / "triton_kernels").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                yield node.func.value.id, "triton"


def not_launched(root):
    """Kernels of no op that is called. They are named <op>_kernel, or <op>_<part>_kernel."""
    called = {(launch.op, launch.backend) for launch in launches.on_gpu()}
    ops = sorted({*registry.OPS, *(op for op, _ in called)}, key=len, reverse=True)
    for name, backend in kernels_in(root):
        op = next((op for op in ops if name.lstrip("_").startswith(f"{op}_")), None)
        if (op, backend) not in called:
            yield f"{name} on {backend}"


def test_every_kernel_is_called():
    assert len(list(kernels_in(ROOT))) >= 5
    assert list(not_launched(ROOT)) == []


@pytest.mark.parametrize(
    "file, text, found",
    [
        (
            "csrc/cuda/new.cuh",
            "LOWBIT_KERNEL(kThreads, 1)\nnew_kernel(int p) {}",
            "new_kernel on cuda",
        ),
        ("examples/cuda/new.cu", "LOWBIT_KERNEL(128) new_kernel() {}", "new_kernel on example"),
        ("triton_kernels/new.py", "_new_kernel[grid,](x)", "_new_kernel on triton"),
        (
            "triton_kernels/b.py",
            "_prepack_weight_kernel[grid,](x)",
            "_prepack_weight_kernel on triton",
        ),
    ],
)
def test_a_kernel_that_is_not_called_is_found(tmp_path, file, text, found):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert list(not_launched(tmp_path)) == [found]


@pytest.fixture
def linear_kernels(monkeypatch):
    """As if weight_only_linear had kernels for GPUs in two modes, and its backward had none."""
    covers = {"mode": ("exact", "bf16"), "permuted": (False,)}
    new = [registry.Kernel(backend, covers, "") for backend in BACKENDS]
    for name, rows in ((LINEAR, new), (BACKWARD, [])):
        op = registry.OPS[name]
        others = [row for row in op.rows if row.backend not in BACKENDS]
        monkeypatch.setattr(op, "rows", [*rows, *others])
    monkeypatch.setitem(CASES, LINEAR, CASES[LINEAR][::5])  # they are many


def test_a_new_row_of_the_registry_is_called_checked_and_timed(linear_kernels):
    new = [(LINEAR, "cuda"), (LINEAR, "triton")]
    assert set(new) <= set(listed())
    assert measure.ops()[0] == LINEAR and DEQUANTIZE in measure.ops()
    called = [launch for launch in launches.on_gpu() if launch.op == LINEAR]
    assert [(launch.op, launch.backend) for launch in called] == sorted(new * 4)
    assert [tally.op for tally in every_case.share(listed(), "no such", 1, 0)].count(LINEAR) == 2
    assert "M=1,16,256;N=4096;K=14336" in measure.options(LINEAR, small=False)


def test_shapes_are_of_every_mode_with_few_rows_and_with_many(linear_kernels):
    cases = shapes_of(LINEAR, "cuda")
    assert {(case.mode, case.m > 16) for case in cases} == {
        (mode, many) for mode in ("exact", "bf16") for many in (False, True)
    }
    assert all(case.m and not case.weight.permuted for case in cases)


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_launched_case_has_a_tail(op):
    cases = shapes_of(op, "reference")
    assert cases and all(case.weight.k % 32 and case.weight.n > 1 for case in cases)


def test_a_launched_case_has_work(monkeypatch):
    full, tail = Case(LINEAR), WeightSpec(k=77)
    empty = [Case(LINEAR, tail, (0,)), Case(LINEAR, dataclasses.replace(tail, n=0))]
    monkeypatch.setitem(CASES, LINEAR, (*empty, full))
    assert shapes_of(LINEAR, "reference") == [full]


def test_every_example_is_timed_where_it_was_predicted():
    text = (ROOT / "docs/performance.md").read_text()
    registered = (ROOT / "examples/cuda/registration.cpp").read_text()
    assert sorted(re.findall(r'm\.def\("(\w+)\(', registered)) == sorted(e.name for e in EXAMPLES)
    assert "2^26 bfloat16" in text and "M=N=K=4096, float16" in text
    assert {e.timed for e in EXAMPLES} == {(2**26,), (4096, 4096, 4096)}


# --- Calls ---------------------------------------------------------------------------------------


def test_all_calls_are_made_and_told(capsys):
    def fail():
        raise ValueError("why")

    right, wrong = Launch("a", "cuda", "1x2", lambda: None), Launch("b", "cuda", "3", fail)
    absent = Launch("c", "cuda", "4", fail, lambda: "no such GPU")
    assert launches.make(iter([right, absent])) == 0
    assert launches.make(iter([wrong, right, absent])) == 1
    said = capsys.readouterr().out
    assert said.endswith(
        "b on cuda (3): FAILED: ValueError: why\na on cuda (1x2): right\n"
        "c on cuda (4): n/a: no such GPU\n1 calls right, 1 failed, 1 n/a\n"
    )


def test_nothing_to_call_is_a_failure():
    assert launches.make(iter([])) == 1
    assert launches.make(iter([Launch("c", "cuda", "4", list, lambda: "no such GPU")])) == 1


def test_what_stands_in_for_the_kernels_is_right(capsys):
    assert launches.main(["--small"]) == 0
    said = capsys.readouterr().out
    assert all(f"{example.name} on torch" in said for example in EXAMPLES)
    assert all(f"{op} on reference" in said for op in CASES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_one_wrong_element_of_an_example_is_found(example):
    def wrong(*operands):
        example.in_torch(*operands)
        operands[-1].view(-1)[-1] += 1

    example.check(example.in_torch, example.few, "cpu")
    with pytest.raises(AssertionError, match="^1 of "):
        example.check(wrong, example.few, "cpu")
    assert measure_examples.figures(example, wrong, example.few, "cpu", 1e-3) == (
        f"{example.name} {'x'.join(map(str, example.few))}: wrong, not timed: "
        f"1 of {example.exact(*example.few, 'cpu')[-1].numel()} elements are wrong",
        False,
    )


def test_an_example_is_made_from_the_op_of_its_name():
    """With torch in the place of the loaded library."""
    gemm = SimpleNamespace(**dict.fromkeys(("tiled_gemm", "tiled_gemm_sm90"), GEMM.in_torch))
    ops = SimpleNamespace(vector_scale=lambda x, s, y: torch.mul(x, s, out=y), **vars(gemm))
    for example in EXAMPLES:
        example.check(example.kernel(ops), example.few, "cpu")


@pytest.mark.parametrize("capability, names", [((9, 0), []), ((8, 0), ["tiled_gemm_sm90"])])
def test_an_example_without_its_instructions_is_not_supported(monkeypatch, capability, names):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    absent = [example for example in EXAMPLES if example.unsupported()]
    assert [example.name for example in absent] == names
    for example in absent:
        assert example.unsupported() == "it needs compute capability 9.0, got 8.0"
        assert measure_examples.on_gpu(example, None)[1]


# --- Every case ----------------------------------------------------------------------------------


def test_shares_are_the_cases_without_one_twice():
    kernels, pattern = [(DEQUANTIZE, "reference"), (BACKWARD, "reference")], "uint1-"
    first, second = (every_case.share(kernels, pattern, 2, index) for index in range(2))
    whole = every_case.share(kernels, pattern, 1, 0)
    together = [every_case.added(a, b) for a, b in zip(first, second, strict=True)]
    assert together == whole and all(tally.passed > 10 for tally in whole)


def test_a_wrong_case_is_told(monkeypatch):
    def wrong(op, backend, args):
        return registry.OPS[op].allocate(*args).fill_(77.0)

    monkeypatch.setattr(check, "run", wrong)
    (tally,) = every_case.share([(DEQUANTIZE, "reference")], "uint1-", 1, 0)
    assert tally.failures and not tally.passed


@pytest.mark.parametrize(
    "second, status",
    [
        (Tally("b", "cuda", passed=1), 0),
        (Tally("b", "cuda", passed=1, failures=["why"]), 1),
        (Tally("b", "cuda", declined=3), 1),
        (Tally("b", "cuda", note="n/a: triton is not installed"), 1),
        (None, 1),
    ],
)
def test_every_kernel_must_pass_cases(monkeypatch, capsys, second, status):
    tallies = [Tally("a", "cuda", passed=3), second] if second else []
    monkeypatch.setattr(every_case, "check", lambda kernels, pattern: tallies)
    assert every_case.main([]) == status
    said = capsys.readouterr().out
    assert second is None or all(text in said for text in [*second.failures, second.note])
