"""The Triton kernels on a machine without a GPU, see tests/triton_cpu.

Whether kernels are interpreted is settled when they are imported, by TRITON_INTERPRET. So each
check_*.py runs in a pytest of its own, whose words stand in the failure here, and whose warnings
become warnings here.
"""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ROOT / "tests" / "triton_cpu"
INTERPRET = "TRITON_INTERPRET"
DEFAULT, SLOW = "not slow and not gpu", "slow"
TIMEOUT = 1800  # seconds: only a hang takes as long

if sys.platform != "linux":
    pytest.skip("triton runs on Linux only", allow_module_level=True)
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed; pip install triton", allow_module_level=True)


def run_checks(names: list[str], marks: str, **variables: str) -> None:
    """Run check_<name>.py with pytest; fails with its whole output."""
    files = [str(CHECKS / f"check_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.triton_cpu.plugin", "-m", marks]
    # What is inherited could select other tests, or kernels that are interpreted.
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", INTERPRET)}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env={**inherited, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(names)} of tests/triton_cpu:\n{done.stdout}", pytrace=False)
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
    assert not re.search(r"\d skipped", done.stdout), done.stdout
    if said := re.search(r"=+ warnings summary =+\n(.*?)\n-- Docs", done.stdout, re.DOTALL):
        warnings.warn(said[1], stacklevel=2)


def test_interpreted():
    names = ["interpreter", "canaries", "mistakes", "values"]
    run_checks(names, DEFAULT, **{INTERPRET: "1"})


def test_compiled_ahead_of_time():
    run_checks(["ahead_of_time"], DEFAULT)


@pytest.mark.slow
def test_every_case_and_mistake_interpreted():
    run_checks(["values", "mistakes"], SLOW, **{INTERPRET: "1"})


@pytest.mark.slow
def test_every_call_compiled_ahead_of_time():
    run_checks(["ahead_of_time"], SLOW)


def test_a_failure_is_shown_whole(tmp_path, monkeypatch):
    """And so are warnings; no test at all is a failure too."""
    monkeypatch.setattr(sys.modules[__name__], "CHECKS", tmp_path)
    text = "import warnings\ndef test(): {}\n"
    (tmp_path / "check_wrong.py").write_text(text.format("assert 1 + 1 == 3, 'a sum'"))
    with pytest.raises(pytest.fail.Exception, match="wrong of tests/triton_cpu:(.|\n)*a sum"):
        run_checks(["wrong"], DEFAULT)
    (tmp_path / "check_noted.py").write_text(text.format("warnings.warn('a note')"))
    with pytest.warns(UserWarning, match="a note"):
        run_checks(["noted"], DEFAULT)
    (tmp_path / "check_nothing.py").write_text("")
    with pytest.raises(pytest.fail.Exception, match="no tests ran"):
        run_checks(["nothing"], DEFAULT)
