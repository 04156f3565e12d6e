"""bench/gpu_day.sh and the machine: its GPU, its programs, what is not installed there."""

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.gpu_day import command, machine, measure, steps
from bench.gpu_day.machine import Gpu
from bench.gpu_day.runner import ABSENT, DRY, PASSED
from bench.gpu_day.steps import BUILD, STEPS, SUMMARY, Step
from tests.conformance.device import device_arch

ROOT = Path(__file__).resolve().parents[1]

# --- What is there -------------------------------------------------------------------------------

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


def test_one_place_asks_nvidia_smi(monkeypatch):
    """Kernels of the tests are built for the GPU that the results are named after."""
    monkeypatch.setattr(machine, "query", lambda fields: ["NVIDIA L4", "600.1", "8.9"])
    assert device_arch() == machine.gpu().arch == "89"
    monkeypatch.setattr(machine, "query", lambda fields: [])
    assert device_arch() is machine.gpu() is None


def test_programs_are_those_of_the_toolkit_that_builds(tmp_path, monkeypatch):
    for folder in ("toolkit/bin", "path"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "nvcc").write_text("#!/bin/sh\n")
        (tmp_path / folder / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert machine.program("nvcc") == str(tmp_path / "toolkit/bin/nvcc")
    monkeypatch.delenv("CUDA_HOME")
    assert machine.program("nvcc") == str(tmp_path / "path/nvcc")


# --- The whole ------------------------------------------------------------------------------------


def test_a_dry_run_builds_into_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(machine, "gpu", lambda: None)
    code = "import lowbit, lowbit.bench.peers; print(lowbit.__file__)"
    imports = Step("import", (), ("{python}", "-c", code), "imported", 20)
    monkeypatch.setattr(command, "STEPS", [BUILD, imports])
    assert command.main(["--dry-run"]) == 0
    assert str(ROOT) not in capsys.readouterr().out.split("import: ")[-1]


# Hides packages that a machine with a GPU need not have, as if they were not installed.
HIDE = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
hidden = {"hypothesis", "rich", "matplotlib", "safetensors", "transformers", "sortedcontainers"}
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)
)
"""


@pytest.fixture
def hiding(tmp_path_factory):
    """The environment of a Python without those packages."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "sitecustomize.py").write_text(HIDE)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("module, status", [("pytest", 0), ("hypothesis", 1), ("rich.table", 1)])
def test_packages_are_hidden(hiding, module, status):
    command = [sys.executable, "-c", f"import {module}"]
    assert subprocess.run(command, env=hiding, stderr=subprocess.DEVNULL).returncode == status


@pytest.mark.slow
@pytest.mark.every_time
def test_every_step_in_small(tmp_path, hiding):
    """The whole of --dry-run as it is called, with no other packages than a GPU day has."""
    # pytest's plugin of hypothesis, where it is installed, fails without what is hidden.
    options = {"PYTEST_ADDOPTS": "-p no:hypothesispytest"}
    done = subprocess.run(
        [ROOT / "bench/gpu_day.sh", "--dry-run"],
        env={**hiding, **options, "OUT": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    walked = [step for step in STEPS if f"\n{step.name}, at most" in done.stdout]
    assert walked == list(STEPS)
    for step in STEPS:
        (line,) = (line for line in lines if f" s  {step.name}: " in line)
        absent = step is steps.PROGRAMS and machine.program("nvcc") is None
        assert line.startswith(ABSENT if absent else DRY) and (absent or step.shows in line)
    assert PASSED not in (tmp_path / SUMMARY).read_text().replace("passed, 0 failed", "")
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["torch"]
    names = {"environment.json", SUMMARY, measure.ARCHIVE}
    assert {path.name for path in tmp_path.iterdir()} == names
    with zipfile.ZipFile(tmp_path / measure.ARCHIVE) as archive:
        assert archive.namelist() == [f"bench_{op}.json" for op in measure.ops()]
