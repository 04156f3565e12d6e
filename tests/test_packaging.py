"""What the build decides, and what an installed lowbit looks like from outside the checkout."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import lowbit

ROOT = Path(__file__).resolve().parents[1]


def load_file(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


# --- Packages -----------------------------------------------------------------------------------


def test_triton_kernels_refuses_another_name():
    with pytest.raises(ImportError, match="must be imported as lowbit.triton_kernels, got triton_"):
        load_file("triton_kernels", ROOT / "triton_kernels/__init__.py")


@pytest.mark.parametrize("name", ["lowbit.triton_kernels", "lowbit.bench.peers"])
def test_folders_at_the_top_are_installed_below_lowbit(name):
    assert importlib.util.find_spec(name) is not None


def test_one_version():
    assert importlib.metadata.version("lowbit") == lowbit.__version__


# --- Decisions of the build ---------------------------------------------------------------------


@pytest.fixture
def config(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("LOWBIT_")]:
        monkeypatch.delenv(variable)
    return load_file("_build_config", ROOT / "_build_config.py")


def make_torch(folder: Path, version: str, cuda: str | None = None) -> Path:
    """A folder that looks like an installed torch to the build."""
    header = folder / "include/torch/csrc/stable/library.h"
    header.parent.mkdir(parents=True)
    header.touch()
    lines = [f"__version__ = '{version}'", f"cuda: Optional[str] = {cuda!r}", "hip = '7.0'"]
    (folder / "version.py").write_text("\n".join(lines))
    return folder


def test_torch_is_read_without_importing_it(config, tmp_path):
    found = config.Torch.at(make_torch(tmp_path, "2.13.0+cu130", "13.0"))
    assert (found.version, found.cuda) == ("2.13.0+cu130", "13.0")


@pytest.mark.parametrize(("version", "usable"), [("2.9.1", False), ("2.11.0", True), ("3.0", True)])
def test_torch_below_2_11_does_not_count(config, tmp_path, version, usable):
    assert (config.Torch.at(make_torch(tmp_path, version)) is not None) == usable


def test_the_torch_in_use_is_found(config):
    assert config.find_torch().version == torch.__version__


def test_torch_is_found_where_an_isolated_build_hides_it(config, monkeypatch, tmp_path):
    made = make_torch(tmp_path / "torch", "2.13.0+cpu")
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(config, "site_folders", lambda: [str(tmp_path)])
    assert config.find_torch().path == made


@pytest.mark.parametrize("shared", [False, True])
def test_system_packages_count_where_the_environment_shares_them(
    config, monkeypatch, tmp_path, shared
):
    setting = f"include-system-site-packages = {str(shared).lower()}"
    (tmp_path / "pyvenv.cfg").write_text(setting)
    monkeypatch.setattr(config.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(config.sys, "base_prefix", "/system")
    found = any(folder.startswith("/system") for folder in config.site_folders())
    assert found == shared


def test_a_wrong_torch_dir_is_refused(config, monkeypatch, tmp_path):
    monkeypatch.setenv("LOWBIT_TORCH_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="LOWBIT_TORCH_DIR must be the folder of a torch >= 2.11"):
        config.find_torch()


@pytest.mark.parametrize(
    ("asked", "nvcc", "torch_cuda", "said"),
    [
        ("auto", True, "13.0", None),
        ("auto", True, None, "torch 2.13.0 is not a CUDA build"),
        ("auto", False, "13.0", "no nvcc found"),
        ("0", True, "13.0", "LOWBIT_CUDA=0"),
        ("1", True, None, None),
    ],
)
def test_when_cuda_is_built(config, monkeypatch, capsys, asked, nvcc, torch_cuda, said):
    monkeypatch.setenv("LOWBIT_CUDA", asked)
    monkeypatch.setattr(config, "find_nvcc", lambda: Path("nvcc") if nvcc else None)
    found = config.Torch(Path("torch"), "2.13.0", torch_cuda)
    monkeypatch.setattr(config, "find_torch", lambda: found)
    assert config.choose_nvcc() == (None if said else Path("nvcc"))
    printed = capsys.readouterr().err
    assert said in printed if said else printed == ""


def test_cuda_demanded_without_nvcc_is_an_error(config, monkeypatch):
    monkeypatch.setenv("LOWBIT_CUDA", "1")
    monkeypatch.setattr(config, "find_nvcc", lambda: None)
    with pytest.raises(SystemExit, match="LOWBIT_CUDA=1 needs nvcc, found none; set CUDA_HOME"):
        config.choose_nvcc()


@pytest.mark.parametrize(
    ("system", "machine", "asked", "native"),
    [
        ("Linux", "x86_64", "", True),
        ("Linux", "aarch64", "", True),
        ("Linux", "x86_64", "0", False),
        ("Darwin", "arm64", "", False),
        ("Windows", "AMD64", "", False),
        ("Darwin", "arm64", "1", True),
    ],
)
def test_platforms(config, monkeypatch, capsys, system, machine, asked, native):
    monkeypatch.setenv("LOWBIT_NATIVE", asked)
    fake = SimpleNamespace(system=lambda: system, machine=lambda: machine)
    monkeypatch.setattr(config, "platform", fake)
    assert config.wants_native() == native
    assert ("installing pure Python" in capsys.readouterr().err) == (not native and asked == "")


@pytest.mark.parametrize("variable", ["LOWBIT_NATIVE", "LOWBIT_SIMD", "LOWBIT_CUDA"])
def test_unknown_values_are_refused(config, monkeypatch, variable):
    monkeypatch.setenv(variable, "yes")
    with pytest.raises(SystemExit, match=f"{variable} must be one of .*, got yes"):
        {
            "LOWBIT_NATIVE": config.wants_native,
            "LOWBIT_SIMD": config.wants_simd,
            "LOWBIT_CUDA": config.choose_nvcc,
        }[variable]()


def test_unknown_cuda_archs_are_refused(config, monkeypatch):
    monkeypatch.setenv("LOWBIT_CUDA_ARCHS", "80;hopper")
    with pytest.raises(SystemExit, match="LOWBIT_CUDA_ARCHS must look like .*, got hopper"):
        config.cuda_archs()


def test_jobs_fit_into_memory(config, monkeypatch):
    monkeypatch.delenv("MAX_JOBS", raising=False)
    monkeypatch.setattr(config, "free_gigabytes", lambda: 4.0)
    assert config.job_count() == 1
    monkeypatch.setenv("MAX_JOBS", "7")
    assert config.job_count() == 7
    monkeypatch.setenv("MAX_JOBS", "0")
    with pytest.raises(SystemExit, match="MAX_JOBS must be a positive number, got 0"):
        config.job_count()


@pytest.fixture
def native_build(monkeypatch):
    pytest.importorskip("setuptools")
    monkeypatch.syspath_prepend(ROOT)
    return load_file("_native_build", ROOT / "_native_build.py")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", folder, *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_that_is_built(native_build, monkeypatch, tmp_path):
    monkeypatch.setattr(native_build, "ROOT", tmp_path)
    git(tmp_path, "init")
    (tmp_path / "file").write_text("first")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    commit = native_build.commit()
    assert git(tmp_path, "rev-parse", "HEAD").startswith(commit)
    (tmp_path / "file").write_text("second")
    assert native_build.commit() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert native_build.commit() is None


def test_an_archive_unpacked_in_another_checkout_has_no_commit(native_build, monkeypatch, tmp_path):
    git(tmp_path, "init")
    (tmp_path / "file").write_text("first")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "lowbit").mkdir()
    monkeypatch.setattr(native_build, "ROOT", tmp_path / "lowbit")
    assert native_build.commit() is None


# --- Real builds --------------------------------------------------------------------------------


class Environment:
    """A virtual environment that borrows the installed packages, torch first of all, by links."""

    def __init__(self, folder: Path):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.folder, self.python = folder, folder / "bin/python"
        site = next(folder.glob("lib/python*/site-packages"))
        for entry in Path(torch.__file__).parents[1].iterdir():
            own = "lowbit" in entry.name.lower() or entry.suffix == ".pth"
            if not own:
                (site / entry.name).symlink_to(entry)

    def run(self, *arguments, cwd: Path, check: bool = True, **variables: str) -> str:
        """Output of python with these arguments; `variables` are added to the environment."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOWBIT_", "PYTHON"))}
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env={**kept, "LOWBIT_CUDA": "0", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def pip(self, *arguments, cwd: Path, **options) -> str:
        # Without --no-deps pip could uninstall a borrowed package, through the link.
        return self.run("-m", "pip", *arguments, "--no-deps", "-v", cwd=cwd, **options)


IMPORT_ALL = """
import importlib.resources, lowbit.registry, lowbit.triton_kernels, lowbit.bench.peers
from lowbit import native
assert importlib.resources.files("lowbit").joinpath("py.typed").is_file()
print(lowbit.__file__, native.load("_ops_cpu").loaded)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the checkout without anything built; builds in it share their objects."""
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__")
    target = tmp_path_factory.mktemp("build with spaces") / "lowbit"
    return shutil.copytree(ROOT, target, ignore=unwanted)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("environment") / "venv")


def imported_from(environment: Environment, folder: Path) -> Path:
    """Where a process started in `folder` imports lowbit from, with a loaded CPU library."""
    path, loaded = environment.run("-c", IMPORT_ALL, cwd=folder).rsplit(maxsplit=1)
    assert loaded == "True"
    return Path(path)


@pytest.mark.slow
@pytest.mark.every_time
def test_wheel_is_built_against_the_installed_torch(environment, tree, tmp_path):
    log = environment.pip("install", ".", cwd=tree)
    assert "Collecting torch" not in log
    assert "leaving out the CUDA kernels: LOWBIT_CUDA=0" in log
    assert imported_from(environment, tmp_path).is_relative_to(environment.folder)


@pytest.mark.slow
@pytest.mark.every_time
def test_sdist_builds_elsewhere_without_simd(environment, tree, tmp_path):
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    environment.run("-c", build, cwd=tree)
    (sdist,) = tree.glob("dist/*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "csrc", "python", "tests", "bench", "docs", "triton_kernels"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert {"_build_backend.py", "csrc/exports.map", "tests/test_packaging.py"} <= names
    assert set(listed.stdout.split()) - names == set()
    environment.pip("install", sdist, cwd=tmp_path, LOWBIT_SIMD="0")
    assert imported_from(environment, tmp_path).is_relative_to(environment.folder)
    ask = "from lowbit import native; print(native.build_info()['simd'], native.isa())"
    assert environment.run("-c", ask, cwd=tmp_path).split() == ["False", "scalar"]


@pytest.mark.slow
@pytest.mark.every_time
def test_editable_rebuild_compiles_what_was_touched(environment, tree, tmp_path):
    def object_times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tree.glob("build/native*/_ops*/*.o")}

    environment.pip("install", "-e", ".", cwd=tree)
    assert imported_from(environment, tmp_path) == tree / "python/lowbit/__init__.py"
    before = object_times()
    (tree / "csrc/registration_cpu.cpp").touch()
    environment.pip("install", "-e", ".", cwd=tree)
    after = object_times()
    assert [name for name in after if after[name] != before[name]] == ["registration_cpu.cpp.o"]


@pytest.mark.slow
@pytest.mark.every_time
def test_pure_wheel_needs_no_compiler(environment, tree, tmp_path):
    no_tools = {"PATH": str(environment.python.parent), "CXX": "none", "CUDA_HOME": "none"}
    log = environment.pip(
        "wheel", ".", "-w", str(tmp_path), cwd=tree, LOWBIT_NATIVE="0", **no_tools
    )
    assert "Collecting torch" not in log
    (wheel,) = tmp_path.glob("*-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = {"lowbit/py.typed", "lowbit/bench/bars/weight_only_linear.json"}
    assert data | {"lowbit/triton_kernels/__init__.py"} <= set(names)
    assert [name for name in names if name.endswith(".so")] == []


@pytest.mark.slow
@pytest.mark.every_time
def test_a_failed_build_names_the_command_and_a_way_out(environment, tree, tmp_path):
    broken = shutil.copytree(tree, tmp_path / "broken", ignore=shutil.ignore_patterns("build"))
    (broken / "csrc/registration_cpu.cpp").write_text("int broken = ;\n")
    log = environment.pip("wheel", ".", cwd=broken, check=False)
    error = log[log.rindex("error: lowbit: this command failed") :]
    assert "-c csrc/registration_cpu.cpp" in error
    assert "LOWBIT_NATIVE=0 installs without compiled kernels" in error
