"""What bench/gpu_day.sh does with the kernels: none is left out, and what is wrong is told."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.gpu_day import (
    every_case,
    launches,
    machine,
    measure,
    measure_examples,
    programs,
    sanitizer,
)
from bench.gpu_day.examples import EXAMPLES
from bench.gpu_day.kernels import listed, shapes_of
from bench.gpu_day.launches import EXAMPLE, Launch
from bench.gpu_day.steps import UNSUPPORTED
from lowbit import registry
from lowbit.bench import check, saved
from lowbit.bench.arguments import INTERRUPTED
from lowbit.bench.cases import BACKWARD, CASES, DEQUANTIZE, LINEAR
from lowbit.bench.rows import Row
from lowbit.bench.sweep import Tally

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
            "csrc/cuda/b.cuh",
            "LOWBIT_KERNEL(64)\nweight_only_linear_backward_kernel(int p) {}",
            "weight_only_linear_backward_kernel on cuda",
        ),
    ],
)
def test_a_kernel_that_is_not_called_is_found(tmp_path, file, text, found):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert list(not_launched(tmp_path)) == [found]


@pytest.fixture
def linear_kernels(monkeypatch):
    """As if weight_only_linear had kernels for GPUs, in two modes."""
    op = registry.OPS[LINEAR]
    covers = {"mode": ("exact", "bf16"), "permuted": (False,)}
    rows = [registry.Kernel(backend, covers, "") for backend in ("cuda", "triton")]
    monkeypatch.setattr(op, "rows", [*rows, *op.rows])
    monkeypatch.setitem(CASES, LINEAR, CASES[LINEAR][::5])  # they are many


def test_a_new_row_of_the_registry_is_called_checked_and_timed(linear_kernels):
    new = [(LINEAR, "cuda"), (LINEAR, "triton")]
    assert set(new) <= set(listed()) and measure.ops() == [LINEAR, DEQUANTIZE]
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


# --- Figures -------------------------------------------------------------------------------------


def test_a_bench_without_figures_of_its_kernel_fails():
    peer = Row("c", "torch bf16", 1, samples=[2e-6])
    absent = Row("c", "lowbit cuda", 1, note="n/a: why")
    timed = Row("c", "lowbit cuda", 1, samples=[1e-6], bytes=5, bandwidth=10e6, cold=True)
    assert measure.figure([peer], "cuda") == ("c: no figures of cuda (no row)", False)
    assert measure.figure([peer, absent], "cuda") == ("c: no figures of cuda (n/a: why)", False)
    assert measure.figure([peer, timed], "cuda") == (
        "c: cuda 1.0 us, 50% of bandwidth, torch bf16 2.0 us",
        True,
    )


@pytest.mark.parametrize(
    "timed, there",
    [(("cuda", "triton"), True), (("cuda",), False), (("triton",), False), ((), False)],
)
def test_each_kernel_must_have_figures(tmp_path, monkeypatch, timed, there):
    rows = [Row("c", f"lowbit {backend}", 1, samples=[1e-6]) for backend in timed]
    monkeypatch.setattr(saved, "read", lambda path: SimpleNamespace(rows=rows))
    (tmp_path / f"bench_{DEQUANTIZE}.json").touch()
    assert measure.judged(DEQUANTIZE, ("cuda", "triton"), tmp_path)[1] == there
    assert measure.judged(LINEAR, ("cuda",), tmp_path) == (f"{LINEAR}: no figures", False)


@pytest.mark.parametrize(
    "status, ran", [(0, [LINEAR, DEQUANTIZE]), (1, [LINEAR, DEQUANTIZE]), (INTERRUPTED, [LINEAR])]
)
def test_one_op_that_fails_does_not_stop_the_next(linear_kernels, monkeypatch, capsys, status, ran):
    asked = []
    monkeypatch.setattr(measure, "bench", lambda op, *rest: asked.append(op) or status)
    monkeypatch.setattr(measure, "judged", lambda op, *rest: (f"{op}: 1 us", True))
    assert measure.main(["folder"]) == int(status > 0) and asked == ran
    assert capsys.readouterr().out == "; ".join(f"{op}: 1 us" for op in ran) + "\n"


# --- Programs ------------------------------------------------------------------------------------


@pytest.fixture
def builders(monkeypatch):
    monkeypatch.setenv("LOWBIT_CUDA_ARCHS", "90a")
    monkeypatch.setattr(machine, "program", lambda name: name)
    for name in ("model_program", "device_program", "build_examples"):
        monkeypatch.setattr(programs, name, lambda *arch: None)


def test_what_does_not_build_is_told(builders, monkeypatch, capsys):
    def refuse(arch):
        raise RuntimeError(f"error for {arch}")

    assert programs.main() == 0 and "not built" not in capsys.readouterr().out
    monkeypatch.setattr(programs, "build_examples", refuse)
    assert programs.main() == 1
    said = capsys.readouterr().out
    assert "error for 90a" in said and said.endswith("\nnot built: examples for sm_90a\n")


def test_without_a_compiler_nothing_is_built(builders, monkeypatch):
    monkeypatch.setattr(machine, "program", lambda name: None)
    assert programs.main() == UNSUPPORTED


# --- Sanitizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "planted, kernels, expected",
    [
        (99, 0, sanitizer.CLEAN),
        (99, 99, sanitizer.FAULTY),
        (99, 1, sanitizer.FAULTY),
        (0, 0, sanitizer.BLIND),
        (1, 0, sanitizer.BLIND),
    ],
)
def test_a_sanitizer_counts_when_it_finds_what_was_planted(tmp_path, planted, kernels, expected):
    tool = tmp_path / "compute-sanitizer"
    status = f'case "$*" in *launches*) exit {kernels};; *) exit {planted};; esac'
    tool.write_text(f"#!/bin/sh\ntest $PYTORCH_NO_CUDA_MEMORY_CACHING = 1 || exit 3\n{status}\n")
    tool.chmod(0o755)
    assert sanitizer.verdict(str(tool), Path("planted"), "memcheck") == expected


@pytest.mark.parametrize(
    "hangs, expected", [("planted", sanitizer.BLIND), ("launches", sanitizer.LATE)]
)
def test_a_sanitizer_that_hangs_is_not_clean(tmp_path, monkeypatch, capsys, hangs, expected):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        f'#!/bin/sh\necho words\ncase "$*" in *{hangs}*) exec sleep 5;; esac\nexit 99\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr(sanitizer, "_SECONDS", 0.3)
    assert sanitizer.verdict(str(tool), Path("planted"), "memcheck") == expected
    assert "exit None)\nwords" in capsys.readouterr().out


@pytest.mark.parametrize(
    "last, status",
    [
        (sanitizer.CLEAN, 0),
        (sanitizer.BLIND, 0),
        (sanitizer.FAULTY, 1),
        (sanitizer.LATE, 1),
        (None, UNSUPPORTED),
    ],
)
def test_what_the_sanitizers_say_together(monkeypatch, capsys, last, status):
    verdicts = [sanitizer.CLEAN, sanitizer.BLIND, last] if last else [sanitizer.BLIND] * 3
    monkeypatch.setattr(machine, "program", lambda name: name)
    monkeypatch.setattr(sanitizer, "_compiled", lambda program: program)
    found = dict(zip(sanitizer.TOOLS, verdicts, strict=True))
    monkeypatch.setattr(sanitizer, "verdict", lambda program, planted, tool: found[tool])
    assert sanitizer.main() == status
    assert capsys.readouterr().out.startswith("memcheck ")


def test_a_machine_without_sanitizers_is_told(monkeypatch, capsys):
    monkeypatch.setattr(machine, "program", lambda name: None)
    assert sanitizer.main() == UNSUPPORTED
    assert "not on this machine" in capsys.readouterr().out


@pytest.mark.slow
def test_the_planted_faults_compile(tmp_path, monkeypatch):
    if machine.program("nvcc") is None:
        pytest.skip("nvcc is not installed")
    monkeypatch.setenv("LOWBIT_CUDA_ARCHS", "90a")
    assert sanitizer._compiled(tmp_path / "planted").is_file()
