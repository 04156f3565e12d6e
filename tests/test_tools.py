"""What the tests are made with: the cache of what was compiled, the commands of tests.*."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import build_cache
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
def test_a_program_is_compiled_anew_when_a_header_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "CACHE", tmp_path / "made")
    source, header = tmp_path / "program.cpp", tmp_path / "status.h"
    source.write_text('#include "status.h"\nint main() { return kStatus; }\n')

    def status(value: int) -> int:
        header.write_text(f"constexpr int kStatus = {value};\n")
        program = compiler.compile_sources("program", [source], [tmp_path], ["-O0"])
        return subprocess.run([program]).returncode

    assert [status(3), status(4), status(3)] == [3, 4, 3]
    assert len(list((tmp_path / "made").iterdir())) == 2
    with pytest.raises(build_cache.CompileError, match="kStatus"):
        header.write_text("")
        compiler.compile_sources("program", [source], [tmp_path], ["-O0"])


@pytest.mark.parametrize("tool", ["host_sim", "conformance", "facts", "mutation"])
def test_help_comes_at_once(tool):
    """Torch takes seconds to import, and so do builds."""
    command = [sys.executable, "-X", "importtime", "-m", f"tests.{tool}", "--help"]
    done = subprocess.run(command, cwd=build_cache.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m tests.{tool}")
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "triton", "pytest"})
