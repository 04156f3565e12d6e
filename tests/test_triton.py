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

from tests.ahead import ahead, result

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ROOT / "tests" / "triton_cpu"
INTERPRET = "TRITON_INTERPRET"
DEFAULT, SLOW = "not slow and not gpu", "slow"
TIMEOUT = 1800  # seconds: only a hang takes as long
# As it was before any test; what is inherited could select other tests, or interpreted kernels.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", INTERPRET)}

if sys.platform != "linux":
    pytest.skip("triton runs on Linux only", allow_module_level=True)
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed; pip install triton", allow_module_level=True)


def run(interpreted: bool, *names: str, marks: str = DEFAULT, options: tuple[str, ...] = ()):
    """check_<name>.py of these names in a pytest."""
    plugins = ["-p", "tests.triton_cpu.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "-m", marks, *options]
    return subprocess.run(
        [*command, *(str(CHECKS / f"check_{name}.py") for name in names)],
        cwd=ROOT,
        env={**ENVIRONMENT, INTERPRET: str(int(interpreted))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )


def judge(done: subprocess.CompletedProcess) -> None:
    """Fails with the whole output of a run that did not pass."""
    if done.returncode:
        pytest.fail(f"{' '.join(done.args)}\n{done.stdout}", pytrace=False)
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
    assert not re.search(r"\d skipped", done.stdout), done.stdout
    if said := re.search(r"=+ warnings summary =+\n(.*?)\n-- Docs", done.stdout, re.DOTALL):
        warnings.warn(said[1], stacklevel=2)


INTERPRETED = (True, "interpreter", "canaries", "mistakes", "values")
COMPILED = (False, "ahead_of_time")


@ahead(run, *INTERPRETED)
def test_interpreted():
    judge(result(run, *INTERPRETED))


@ahead(run, *COMPILED)
def test_compiled_ahead_of_time():
    judge(result(run, *COMPILED))


@pytest.fixture
def share(request) -> tuple[str, ...]:
    return (f"--share={request.config.option.share}",)


@pytest.mark.slow
@pytest.mark.every_time  # a share of what is in it
def test_every_case_and_mistake_interpreted(share):
    judge(run(True, "values", "mistakes", marks=SLOW, options=share))


@pytest.mark.slow
@pytest.mark.every_time
def test_every_call_compiled_ahead_of_time(share):
    judge(run(False, "ahead_of_time", marks=SLOW, options=share))


def test_a_failure_is_shown_whole(tmp_path, monkeypatch):
    """And so are warnings; no test at all is a failure too."""
    monkeypatch.setattr(sys.modules[__name__], "CHECKS", tmp_path)
    text = "import warnings\ndef test(): {}\n"
    (tmp_path / "check_wrong.py").write_text(text.format("assert 1 + 1 == 3, 'a sum'"))
    with pytest.raises(pytest.fail.Exception, match="check_wrong.py\n(.|\n)*a sum"):
        judge(run(False, "wrong"))
    (tmp_path / "check_noted.py").write_text(text.format("warnings.warn('a note')"))
    with pytest.warns(UserWarning, match="a note"):
        judge(run(False, "noted"))
    (tmp_path / "check_nothing.py").write_text("")
    with pytest.raises(pytest.fail.Exception, match="no tests ran"):
        judge(run(False, "nothing"))
