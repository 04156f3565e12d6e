"""What nvcc makes of the CUDA kernels, read from the binaries; no GPU is needed."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lowbit import native
from tests import torch_files
from tests.ahead import ahead
from tests.build_cache import ROOT
from tests.cuda_build import CUDART, HOST_FLAGS, LINKER_OPTIONS
from tests.facts import __main__
from tests.facts.cubins import (
    ARCHS,
    FLAGS,
    Compilation,
    find_nvcc,
    kernel_sources,
    of_kernels,
)
from tests.facts.limits import ENTRIES
from tests.facts.sass import kernel_facts, missing_tools
from tests.facts.table import facts_table, predictions_table
from tests.facts.verdict import failures, without_limits

SOURCES = tuple(dict.fromkeys(entry.source for entry in ENTRIES))
BUILT = ("80", "90a")  # those of the build where nobody asks for others


@pytest.fixture
def facts_of():
    if missing := missing_tools():
        pytest.skip(missing)
    return lambda source, arch: [*kernel_facts(of_kernels(source, arch).made()).values()]


@pytest.fixture
def facts_of_sm80(facts_of):
    return {(source, "80"): facts_of(source, "80") for source in SOURCES}


def every_binary():
    for source, arch in itertools.product(SOURCES, ARCHS):
        marks = [ahead(Compilation.made, of_kernels(source, arch))]
        marks += [] if arch in BUILT else [pytest.mark.slow, pytest.mark.every_time]
        yield pytest.param(source, arch, marks=marks)


@pytest.mark.parametrize(("source", "arch"), [*every_binary()])
def test_kernels_keep_their_limits(facts_of, source, arch):
    entries = [entry for entry in ENTRIES if entry.source == source]
    found = failures(arch, facts_of(source, arch), entries)
    assert not found, "\n\n".join(found)


def test_tables(facts_of_sm80):
    """A line for the limits and one for the facts of each entry; a time on each GPU it runs on."""
    entries = [entry for entry in ENTRIES if "80" in entry.archs]
    lines = facts_table(facts_of_sm80).splitlines()[2:]
    assert len([line for line in lines if not line.startswith("| limits of")]) == len(entries)
    header, _, *rows = predictions_table(["80"]).splitlines()
    assert "A100" in header and len(rows) == len(ENTRIES)
    assert sum(" us, " in row for row in rows) == len(entries)


def test_every_source_has_limits():
    assert without_limits(kernel_sources(), ENTRIES) == []
    assert set(SOURCES) <= set(kernel_sources())


def test_the_command(facts_of_sm80, monkeypatch, capsys):
    """It fails, in words, on a limit that is broken and on a source that has none."""
    assert __main__.main(["--arch", "80"]) == 0
    assert capsys.readouterr().out.endswith("binaries are within their limits\n")
    tight, unlimited = ENTRIES[0], ENTRIES[-1].source
    assert tight.source != unlimited
    entries = [replace(tight, registers=8), *(e for e in ENTRIES[1:] if e.source != unlimited)]
    monkeypatch.setattr(__main__, "ENTRIES", entries)
    assert __main__.main(["--arch", "80"]) == 1
    said = capsys.readouterr().out
    assert "registers must be at most 8, got" in said
    assert f"{unlimited} must have an entry in tests/facts/limits.py, got none" in said


def test_flags_are_those_of_the_build():
    build = (ROOT / "_native_build.py").read_text()
    flags = (*FLAGS, torch_files.TARGET, HOST_FLAGS, CUDART)
    assert [flag for flag in flags if f'"{flag}"' not in build] == []
    assert [option for option in LINKER_OPTIONS if f'"{option}"' not in build] == []


# The CUDA recipe alone: the CPU library has tests of its own and takes longer to compile.
BUILD_CUDA_ONLY = """
import _build_config, _native_build as build
recipe = build.cuda_recipe(_build_config.choose_nvcc())
extension = next(e for e in build.native_extensions() if e.name == "lowbit._ops_cuda")
edges = build.library_edges(build.Path("_ops_cuda.so"), recipe, extension.sources)
build.Path("build.ninja").write_text(build.NINJA_RULES + edges)
build.run_ninja(build.Path("build.ninja"))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """_ops_cuda.so of this installation, or else as setup.py builds it, in a copy of the tree."""
    installed = native.FOLDER / "_ops_cuda.so"
    if installed.is_file():
        return installed
    if find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    tree = tmp_path_factory.mktemp("tree")
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tree)
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    environment = {**os.environ, "LOWBIT_CUDA": "1", "LOWBIT_CUDA_ARCHS": "80"}
    command = [sys.executable, "-c", BUILD_CUDA_ONLY]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "_ops_cuda.so"


def output(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# The shims of torch, and the C and C++ libraries: theirs carry a version, unless libtorch exports
# the same names of namespace std and is found first.
STABLE = re.compile(r".*@|aoti_torch_|torch_|_Z(N[KRO]*|T[VIS])?St")


def test_library_needs_only_stable_symbols(library):
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", library))
    assert "libtorch.so" in needed
    assert not [name for name in needed if "cuda" in name or "c10" in name]
    undefined = re.findall(r"^\s*U (\S+)$", output("nm", "-D", library), re.MULTILINE)
    assert any(name.startswith("aoti_torch_") for name in undefined)
    assert [name for name in undefined if not STABLE.match(name)] == []


def test_library_exports_nothing(library):
    assert output("nm", "-D", "--defined-only", library).strip() == ""
