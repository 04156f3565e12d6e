"""bench/gpu_day.sh without a GPU: its plan, what becomes of steps, a walk through all of them."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu_day import command, launches, machine, measure, runner, sanitizer
from bench.gpu_day.machine import Gpu
from bench.gpu_day.runner import ABSENT, FAILED, PASSED, Day
from bench.gpu_day.steps import BENCHES, BUILD, LIMIT, MOST_FILES, STEPS, SUMMARY, UNSUPPORTED, Step
from bench.gpu_day.summary import LOG_COLUMNS, Heading
from lowbit.bench.cases import CASES
from lowbit.bench.rows import Row

ROOT = Path(__file__).resolve().parents[1]
GPU = Gpu("NVIDIA H200", "600.1", "9.0")


def test_all_steps_fit_into_ten_minutes_and_eight_files():
    assert sum(step.limit for step in STEPS) <= LIMIT < 600
    outputs = [step.output for step in STEPS if step.output]
    assert len({*outputs, SUMMARY}) == len(outputs) + 1 <= MOST_FILES == 8
    assert all("/" not in name for name in outputs)


def test_what_steps_need_is_in_the_tree(tmp_path):
    missing = [name for step in STEPS for name in day(tmp_path, dry=True)._missing(step)]
    # The kernels of the wrappers come with tests/conformance.
    assert missing == ([] if (ROOT / "tests/conformance").is_dir() else ["tests.conformance"])


def test_every_bench_is_of_an_op():
    outputs = [step.output for step in BENCHES]
    assert outputs and set(outputs) <= {f"bench_{op}.json" for op in CASES}


# --- What is there on a machine with a GPU ------------------------------------------------------

ON_THE_MACHINE = {"torch", "pytest", "numpy", "lowbit", "tests", "bench"}


def imports_at_collection(path):
    """Top-level modules that are imported when pytest collects a file."""
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


# Programs that tests start, where Triton is installed; pytest collects none of them.
PROGRAMS = ("triton_cpu/*.py", "oracle/triton_layouts.py", "mutation/triton_worker.py")


def test_collection_needs_no_other_package():
    found = {
        f"{path.name}: {name}"
        for path in (ROOT / "tests").rglob("*.py")
        if not any(path.relative_to(ROOT).match(pattern) for pattern in PROGRAMS)
        for name in imports_at_collection(path)
        if name not in ON_THE_MACHINE | sys.stdlib_module_names
    }
    assert found == set()


def test_imports_of_other_packages_are_seen(tmp_path):
    file = tmp_path / "test_a.py"
    file.write_text("import os\nfrom hypothesis import given\nimport rich.table\nfrom . import x\n")
    assert list(imports_at_collection(file)) == ["os", "hypothesis", "rich"]


def test_tests_that_need_a_gpu_are_in_their_folder():
    """The step collects tests/gpu alone, since collecting all takes a tenth of its time."""
    mark = "mark." + "gpu"
    marked = {p for p in (ROOT / "tests").rglob("test_*.py") if mark in p.read_text()}
    assert marked and {path.parent.name for path in marked} == {"gpu"}


# --- Steps ---------------------------------------------------------------------------------------


def day(tmp_path, dry=False):
    return Day(ROOT, {"out": str(tmp_path), "python": sys.executable}, dict(os.environ), dry)


def python(code, name="a step", limit=20, **more):
    return Step(name, ("{python}", "-c", code), ("{python}", "-c", "print('small')"), limit, **more)


def outcome(tmp_path, step, dry=False):
    (found,) = day(tmp_path, dry).run([step])
    return found


@pytest.mark.parametrize(
    "code, verdict, says",
    [
        ("print('one'); print('two')", PASSED, "two"),
        ("print('one'); raise SystemExit('why')", FAILED, "why"),
        (f"print('refused'); raise SystemExit({UNSUPPORTED})", ABSENT, "refused"),
        ("pass", PASSED, "it printed nothing"),
        ("import os; os.kill(os.getpid(), 11)", FAILED, "it printed nothing"),
    ],
)
def test_the_verdict_of_a_step(tmp_path, code, verdict, says):
    found = outcome(tmp_path, python(code))
    assert (found.verdict, found.says) == (verdict, says)
    assert found.passed == (verdict != FAILED)


def test_a_step_must_leave_its_file(tmp_path):
    step = python("print(1)", output="a.json")
    assert outcome(tmp_path, step).says == "it left no a.json"
    (tmp_path / "a.json").write_text("{}")
    assert outcome(tmp_path, step).verdict == PASSED


def test_what_a_step_prints_is_kept_also_when_it_fails(tmp_path):
    outcome(tmp_path, python("print('said'); raise SystemExit(3)", output="a.txt", prints=True))
    assert (tmp_path / "a.txt").read_text() == "said\n"


def test_a_step_out_of_time_is_stopped_with_its_children_and_the_next_runs(tmp_path):
    child = f"import time; time.sleep(1.5); open({str(tmp_path / 'alive')!r}, 'w')"
    code = "import subprocess, sys; print('begun', flush=True); "
    code += f"subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    slow, fast = day(tmp_path).run([python(code, limit=0.7), python("print('done')")])
    assert slow.verdict == FAILED and slow.says.startswith("stopped after") and slow.tail == "begun"
    assert fast.verdict == PASSED and time.monotonic() - start < 1.4
    time.sleep(max(0.0, start + 2.5 - time.monotonic()))
    assert not (tmp_path / "alive").exists()


def test_no_step_begins_after_the_end_of_the_day(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LIMIT", 0)
    assert outcome(tmp_path, python("print(1)")).says == "no time left of 0 s"


@pytest.mark.parametrize(
    "needs", [{"modules": ("no.such",)}, {"files": ("no/such",)}, {"programs": ("no-such",)}]
)
def test_a_step_without_what_it_needs_fails_and_is_not_run(tmp_path, needs):
    found = outcome(tmp_path, python("print(1)", **needs))
    assert found.verdict == FAILED and found.says.startswith("not there: no")


def test_a_dry_run_takes_the_small_command_and_needs_no_programs(tmp_path, capsys):
    step = python("raise SystemExit(1)", programs=("no-such",), output="a.json")
    assert outcome(tmp_path, step, dry=True).says == "small"
    printed = capsys.readouterr().out
    assert "raise SystemExit(1)" in printed and "no-such: not on this machine" in printed


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(machine, "gpu", lambda: GPU)
    return tmp_path / "out"


@pytest.mark.parametrize(
    "statuses, expected", [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((0, UNSUPPORTED), 0)]
)
def test_the_exit_status_tells_whether_all_passed(results, monkeypatch, capsys, statuses, expected):
    steps = [python(f"raise SystemExit({s})", f"step {i}") for i, s in enumerate(statuses)]
    monkeypatch.setattr(command, "STEPS", steps)
    assert command.main(["--commit", "abc"]) == expected
    text = (results / SUMMARY).read_text()
    assert "NVIDIA H200" in text and "commit abc" in text
    assert all(f"| {step.name} |" in text for step in steps)
    assert text.count("FAILED") >= statuses.count(1) and str(results) in capsys.readouterr().out


def test_the_summary_is_there_after_each_step(results, monkeypatch):
    second = python(f"print(open({str(results / SUMMARY)!r}).read().count('first'))", "second")
    monkeypatch.setattr(command, "STEPS", [python("print(1)", "first"), second])
    command.main(["--commit", "abc"])
    assert "| second | passed |" in (results / SUMMARY).read_text()


def test_steps_import_the_built_package_and_build_for_the_gpu(results, monkeypatch):
    code = "import os; print(os.environ['PYTHONPATH'], os.environ['LOWBIT_CUDA_ARCHS'])"
    monkeypatch.setattr(command, "STEPS", [python(code)])
    command.main(["--commit", "abc"])
    wanted = f"{ROOT / 'build/gpu_day'}{os.pathsep}{ROOT / 'python'}"
    line = next(x for x in (results / SUMMARY).read_text().splitlines() if "| a step |" in x)
    assert wanted in line and line.endswith(" 90a |")


def test_without_a_gpu_nothing_runs(monkeypatch, capsys):
    monkeypatch.setattr(machine, "gpu", lambda: None)
    assert command.main([]) == 2 and "--dry-run" in capsys.readouterr().err


def test_the_line_for_the_log_has_the_columns_of_the_log(tmp_path):
    (found,) = day(tmp_path).run([python("print('a | b')")])
    line = Heading(GPU, "abc", date="2000-01-01").log_line([found])
    assert line.count("|") == len(LOG_COLUMNS) + 1 and "1 of 1 passed" in line
    header = f"| {' | '.join(LOG_COLUMNS)} |"
    assert header in (ROOT / "docs/gpu_log.md").read_text()


@pytest.mark.parametrize(
    "name, capability, slug, arch",
    [
        ("NVIDIA H200", "9.0", "h200", "90a"),
        ("NVIDIA GeForce RTX 4090", "8.9", "rtx-4090", "89"),
        ("NVIDIA A100-SXM4-80GB", "8.0", "a100-sxm4-80gb", "80"),
        ("NVIDIA B200", "10.0", "b200", "100a"),
        ("NVIDIA", "12.0", "gpu", "120a"),
    ],
)
def test_names_of_folders_and_architectures(name, capability, slug, arch):
    found = Gpu(name, "600", capability)
    assert (found.slug, found.arch) == (slug, arch)


# --- The programs of the steps ------------------------------------------------------------------


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
    assert sanitizer.verdict(str(tool), "memcheck", Path("planted")) == expected


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
    assert sanitizer.verdict(str(tool), "memcheck", Path("planted")) == expected
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
    monkeypatch.setattr(sanitizer, "verdict", lambda *args: verdicts.pop(0))
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


@pytest.mark.parametrize("op", sorted(CASES))
def test_a_launched_case_has_a_tail(op):
    assert launches.case_of(op, "reference").weight.k % 32


def test_no_kernel_to_launch_is_a_failure(capsys):
    assert launches.main(["--backends", "no-such"]) == 1
    assert capsys.readouterr().out == "no kernel on no-such\n"


def test_a_bench_without_figures_of_its_kernel_fails():
    peer = Row("c", "torch bf16", 1, samples=[2e-6])
    absent = Row("c", "lowbit cuda", 1, note="n/a: why")
    timed = Row("c", "lowbit cuda", 1, samples=[1e-6], bytes=5, bandwidth=10e6, cold=True)
    assert measure.figure([peer], "cuda") == ("c: no figures of cuda (no row)", False)
    assert measure.figure([peer, absent], "cuda") == ("c: no figures of cuda (n/a: why)", False)
    assert measure.figure([peer, timed], "cuda") == (
        "c: 1.0 us, 50% of bandwidth, torch bf16 2.0 us",
        True,
    )


def test_a_dry_run_builds_into_a_folder_of_its_own(results, monkeypatch, capsys):
    code = "import lowbit, lowbit.bench.peers; print(lowbit.__file__)"
    imports = Step("import", (), ("{python}", "-c", code), 20)
    monkeypatch.setattr(command, "STEPS", [BUILD, imports])
    assert command.main(["--dry-run"]) == 0
    assert str(ROOT) not in capsys.readouterr().out.split("import: ")[-1]


@pytest.mark.slow
def test_every_step_in_small(tmp_path):
    """The whole of --dry-run as it is called."""
    done = subprocess.run(
        [ROOT / "bench/gpu_day.sh", "--dry-run"],
        env={**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    absent = [] if (ROOT / "tests/conformance").is_dir() else ["wrapper conformance"]
    failed = [line for line in done.stdout.splitlines() if line.startswith(FAILED)]
    assert len(failed) == len(absent) == done.returncode, done.stdout + done.stderr
    walked = [step.name for step in STEPS if f"\n{step.name}, at most" in done.stdout]
    assert walked == [step.name for step in STEPS if step.name not in absent]
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["torch"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("environment.json", "bench_dequantize_weight.json", SUMMARY)
    }
