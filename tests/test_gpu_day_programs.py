"""The programs of bench/gpu_day.sh that time kernels, build and start sanitizers."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.gpu_day import machine, measure, programs, sanitizer
from bench.gpu_day.steps import UNSUPPORTED
from lowbit.bench import saved
from lowbit.bench.arguments import INTERRUPTED
from lowbit.bench.cases import DEQUANTIZE, LINEAR
from lowbit.bench.rows import Row

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
def test_one_op_that_fails_does_not_stop_the_next(monkeypatch, capsys, status, ran):
    asked = []
    monkeypatch.setattr(measure, "ops", lambda: [LINEAR, DEQUANTIZE])
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
