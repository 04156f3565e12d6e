"""What the tests are made with: the cache of what was compiled, the commands of tests.*."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import build_cache, rotation
from tests.host_sim import compiler


def test_what_is_known_is_made_once(tmp_path):
    """Whoever asks meanwhile waits for the whole of it."""
    calls = []

    def make(output):
        calls.append(output)
        output.write_text("begun")
        time.sleep(0.1)
        output.write_text("whole")

    def ask(_):
        return build_cache.made(tmp_path, "key", "name", make).read_text()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {"whole"}
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "key"]


def test_what_fails_leaves_nothing_and_is_tried_again(tmp_path):
    def fail(output):
        output.write_text("begun")
        raise build_cache.CompileError("refused")

    for _ in range(2):
        with pytest.raises(build_cache.CompileError, match="refused"):
            build_cache.made(tmp_path, "key", "name", fail)
        assert list(tmp_path.iterdir()) == []


def test_what_nobody_asked_for_in_a_month_goes(tmp_path):
    def make(output):
        output.write_text("made")

    for key in ("asked for", "forgotten"):
        build_cache.made(tmp_path, key, "name", make)
        long_ago = time.time() - (build_cache.UNUSED_DAYS + 1) * 86400
        os.utime(tmp_path / key, (long_ago, long_ago))
    build_cache.made(tmp_path, "asked for", "name", make)
    build_cache.made(tmp_path, "new", "name", make)
    assert {place.name for place in tmp_path.iterdir()} == {"asked for", "new"}


@pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed")
def test_a_program_is_compiled_anew_when_a_header_changes(tmp_path):
    made = tmp_path / "made"
    source, header = tmp_path / "program.cpp", tmp_path / "status.h"
    source.write_text('#include "status.h"\nint main() { return kStatus; }\n')

    def status(value: int) -> int:
        header.write_text(f"constexpr int kStatus = {value};\n")
        program = compiler.compile_sources("program", [source], [tmp_path], ["-O0"], folder=made)
        return subprocess.run([program]).returncode

    assert [status(3), status(4), status(3)] == [3, 4, 3]
    assert len(list(made.iterdir())) == 2
    with pytest.raises(build_cache.CompileError, match="kStatus"):
        header.write_text("")
        compiler.compile_sources("program", [source], [tmp_path], ["-O0"], folder=made)


# ---- what is begun before, and what takes turns ----

TESTS = """
import threading
import pytest
from tests.ahead import ahead, result

calls, begun = [], threading.Event()

def work(name):
    calls.append(name)
    begun.set()
    return name.upper()

def fail():
    raise ValueError("of the work")

@ahead(work, "a")
@ahead(fail)
def test_it():
    assert begun.wait(60)
    assert result(work, "a") == "A" and calls == ["a"]
    assert result(work, "b") == "B" and calls == ["a", "b"]
    with pytest.raises(ValueError, match="of the work"):
        result(fail)

@ahead(work, "c")
def test_that_is_not_selected():
    pass

@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_in_turn(number):
    pass
"""


def test_work_is_begun_once_before_it_is_asked_for_and_slow_tests_take_turns(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(TESTS)
    options = ["-c", build_cache.ROOT / "pyproject.toml", "-p", "no:cacheprovider"]
    selected = ["-p", "tests.conftest", "-m", "", "-k", "not selected", "--share=3"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *selected, file]
    done = subprocess.run(command, cwd=build_cache.ROOT, capture_output=True, text=True)
    assert "3 passed, 5 deselected" in done.stdout, done.stdout


class Item:
    def __init__(self, *marks):
        self.marks = marks

    def get_closest_marker(self, name):
        return name if name in self.marks else None


def test_each_slow_test_has_its_turn(monkeypatch):
    slow, others = [Item("slow") for _ in range(7)], [Item(), Item("slow", "every_time")]
    run = []
    for turn in range(3):
        monkeypatch.setattr(rotation, "turn", lambda share, turn=turn: turn)
        left_out = rotation.left_out([*slow, *others], 3)
        assert not set(others) & set(left_out)
        run += [item for item in slow if item not in left_out]
    assert len(run) == len(slow) and set(run) == set(slow)


def test_turns_come_with_the_commit(tmp_path):
    assert rotation.turn(1000, tmp_path) == 0
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    git = ["git", "-C", tmp_path, *identity]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert rotation.turn(16, tmp_path) == int(head.strip()[-1], 16)


@pytest.mark.parametrize("tool", ["host_sim", "conformance", "facts", "mutation"])
def test_help_comes_at_once(tool):
    """Torch takes seconds to import, and so do builds."""
    command = [sys.executable, "-X", "importtime", "-m", f"tests.{tool}", "--help"]
    done = subprocess.run(command, cwd=build_cache.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m tests.{tool}")
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "triton", "pytest"})
