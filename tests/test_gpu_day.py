"""bench/gpu_day.sh without a GPU: its plan, what becomes of steps, a walk through all of them."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest

from bench.gpu_day import command, machine, measure, runner, steps
from bench.gpu_day.machine import Gpu
from bench.gpu_day.runner import ABSENT, DRY, FAILED, PASSED, Day
from bench.gpu_day.steps import GRACE, LIMIT, STEPS, SUMMARY, UNSUPPORTED, Step
from bench.gpu_day.summary import LOG_COLUMNS, Heading

ROOT = Path(__file__).resolve().parents[1]
GPU = Gpu("NVIDIA H200", "600.1", "9.0")


def test_all_steps_fit_into_ten_minutes_and_eight_files():
    assert sum(step.limit + GRACE for step in STEPS) <= LIMIT < 570
    outputs = [step.output for step in STEPS if step.output] + [SUMMARY]
    outputs += [measure.ARCHIVE]
    assert len(set(outputs)) == len(outputs) <= steps.MOST_FILES == 8
    assert all("/" not in name for name in outputs)


def test_the_log_tells_of_every_step():
    text = (ROOT / "docs/gpu_log.md").read_text()
    rows = [f"| {step.name} | {step.limit} |" for step in STEPS]
    assert all(text.count(row) == 1 for row in rows)
    assert sorted(rows, key=text.index) == rows


def test_what_matters_most_comes_first():
    wanted = [steps.CONFORMANCE, steps.PYTEST, steps.BENCH, steps.SANITIZER]
    assert [step for step in STEPS if step in wanted] == wanted and STEPS[-1] is steps.SANITIZER
    # What compiles for a step stands before it.
    assert STEPS.index(steps.PROGRAMS) < STEPS.index(steps.CONFORMANCE)
    assert STEPS.index(steps.BUILD) < STEPS.index(steps.PYTEST)


def test_what_steps_need_is_in_the_tree(tmp_path):
    assert [name for step in STEPS for name in day(tmp_path, dry=True)._missing(step)] == []


# --- Steps ---------------------------------------------------------------------------------------


def day(tmp_path, dry=False):
    return Day(ROOT, {"out": str(tmp_path), "python": sys.executable}, dict(os.environ), dry)


def python(code, name="a step", limit=20, **more):
    small = ("{python}", "-c", "print('small')")
    return Step(name, ("{python}", "-c", code), small, "shown", limit, **more)


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


# Long enough for Python to start beside compilers, far less than what is waited for.
_LIMIT, _FOR_EVER = 3.0, 600


def test_a_step_out_of_time_is_stopped_with_its_children_and_the_next_runs(tmp_path):
    child = f"import time; time.sleep({_FOR_EVER})"
    code = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    code += "print('child', child.pid, flush=True); child.wait()"
    slow, fast = day(tmp_path).run([python(code, limit=_LIMIT), python("print('done')")])
    assert slow.verdict == FAILED and slow.says.startswith("stopped after")
    assert slow.tail.startswith("child") and "KeyboardInterrupt" in slow.tail
    assert fast.verdict == PASSED
    assert not _runs(int(slow.tail.split()[1]))


def _runs(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and nobody waits for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_step_out_of_time_may_write_what_it_has(tmp_path, handler):
    """Also where the day itself ignores interrupts, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        found = _interrupted(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.verdict == FAILED and found.says.endswith(" s: kept")


def _interrupted(tmp_path):
    wait = f"import time\ntry: time.sleep({_FOR_EVER})\nexcept KeyboardInterrupt: print('kept')"
    return outcome(tmp_path, python(wait, limit=_LIMIT))


def test_a_step_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.2)
    deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); print('deaf', flush=True); "
    found = outcome(tmp_path, python(f"{deaf}time.sleep({_FOR_EVER})", limit=_LIMIT))
    assert found.verdict == FAILED and found.tail == "deaf"


@pytest.mark.parametrize("hangs", range(len(STEPS)), ids=[step.name for step in STEPS])
def test_whichever_step_runs_out_of_time_the_others_run(tmp_path, monkeypatch, hangs):
    def stand_in(number, step):
        code = "import time; time.sleep(9)" if number == hangs else "pass"
        command = ("{python}", "-S", "-c", code)
        limit = 0.2 if number == hangs else step.limit
        return Step(step.name, command, (), "", limit)

    found = list(day(tmp_path).run([stand_in(*each) for each in enumerate(STEPS)]))
    verdicts = [PASSED] * len(STEPS)
    verdicts[hangs] = FAILED
    assert [each.verdict for each in found] == verdicts


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
    found = outcome(tmp_path, step, dry=True)
    assert (found.verdict, found.says, found.passed) == (DRY, "shown (small)", True)
    printed = capsys.readouterr().out
    assert "raise SystemExit(1)" in printed and "no-such: not on this machine" in printed


def test_a_dry_run_of_a_small_command_that_fails_has_failed(tmp_path):
    step = dataclasses.replace(python("pass"), small=("{python}", "-c", "raise SystemExit('why')"))
    assert outcome(tmp_path, step, dry=True).verdict == FAILED


def test_a_dry_run_may_take_longer_than_a_gpu_day(tmp_path):
    """It may be on two cores."""
    step = dataclasses.replace(python("pass"), limit=0.0)
    assert outcome(tmp_path, step, dry=True).verdict == DRY
    assert outcome(tmp_path, step).verdict == FAILED


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
