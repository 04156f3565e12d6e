"""Builds the native libraries: one ninja file, so that parallel and incremental builds come free.

lowbit/_ops_cpu.so and lowbit/_ops_cuda.so register kernels with torch. They use its stable ABI only
and no Python, so one build serves every torch from 2.11 on and every Python. Linking -ltorch alone
is enough: in a CUDA build of torch that library brings the CUDA symbols with it.
lowbit._C is an optional extension module with build information.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

import _build_config as config

ROOT = Path(__file__).resolve().parent
# Objects stay here between builds, also between wheel and editable ones.
BUILD = Path("build", f"native-{sysconfig.get_platform()}-{sys.implementation.cache_tag}")

CXX_FLAGS = ["-O3", "-std=c++20", "-fPIC", "-Wall", "-fvisibility=hidden", "-ffp-contract=off"]
# The host half of a CUDA source; nvcc's own generated code does not compile without warnings.
HOST_FLAGS = "-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off"
NVCC_FLAGS = ["-O3", "-std=c++20", "-DUSE_CUDA", HOST_FLAGS]
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # torch 2.11

NINJA_RULES = """\
rule compile
  command = $compiler -MD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = compile $in
rule link
  command = $compiler -shared -o $out $in $flags
  description = link $out
"""


def sources(*patterns: str) -> list[str]:
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix() for path in files]


def can_build_info_module() -> bool:
    missing = None
    if not importlib.util.find_spec("pybind11"):
        missing = "pybind11"
    elif not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        missing = "Python.h"
    if missing:
        config.say(f"leaving out the build information module lowbit._C: {missing} not found")
    return missing is None


def native_extensions() -> list[Extension]:
    """The extensions to build here; their names and sources, all else is in the recipes below."""
    if not config.wants_native():
        return []
    cpu = ["csrc/registration_cpu.cpp", *sources("csrc/cpu/*.cpp")]
    cuda = ["csrc/registration_cuda.cpp", *sources("csrc/cuda/*.cu")]
    return [
        Extension("lowbit._ops_cpu", cpu),
        Extension("lowbit._ops_cuda", cuda),
        Extension("lowbit._C", ["csrc/build_info.cpp"]),
    ]


@dataclass(frozen=True)
class Recipe:
    """How one library is compiled and linked."""

    compiler: str
    compile_flags: list[str]
    link_flags: list[str]


def torch_compile_flags() -> list[str]:
    include = config.require_torch().path / "include"
    return [TORCH_TARGET, "-Icsrc", "-isystem", str(include)]


def torch_link_flags(pass_on: str) -> list[str]:
    """Linker flags; `pass_on` is how the compiler driver hands an option to the linker."""
    options = ["--no-as-needed", "--version-script=csrc/exports.map"]
    lib = config.require_torch().path / "lib"
    return [*(pass_on + option for option in options), f"-L{lib}", "-ltorch"]


def cpu_recipe() -> Recipe:
    scalar = [] if config.wants_simd() else ["-DLOWBIT_SCALAR_ONLY"]
    flags = [*CXX_FLAGS, *torch_compile_flags(), *scalar]
    return Recipe(config.cxx(), flags, torch_link_flags("-Wl,"))


def gencode(arch: str) -> list[str]:
    number, _, ptx = arch.partition("+")
    code = f"[compute_{number},sm_{number}]" if ptx else f"sm_{number}"
    return ["-gencode", f"arch=compute_{number},code={code}"]


def cuda_recipe(nvcc: Path) -> Recipe:
    archs = [flag for arch in config.cuda_archs() for flag in gencode(arch)]
    host = ["-ccbin", os.environ["CXX"]] if shutil.which(os.environ.get("CXX", "")) else []
    flags = [*NVCC_FLAGS, *archs, *host, *torch_compile_flags()]
    return Recipe(
        shlex.quote(str(nvcc)), flags, [*host, "-cudart=static", *torch_link_flags("-Xlinker=")]
    )


def commit() -> str | None:
    """The commit that is built, "-dirty" if files differ from it; None outside a git checkout."""
    if not (ROOT / ".git").exists():  # git would tell of a repository around an unpacked archive
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def info_recipe(nvcc: Path | None) -> Recipe:
    import pybind11

    torch = config.require_torch()
    facts = {"TORCH_VERSION": f'"{torch.version}"', "SIMD": str(int(config.wants_simd()))}
    if described := commit():
        facts["COMMIT"] = f'"{described}"'
    if nvcc:
        facts["CUDA_ARCHS"] = f'"{";".join(config.cuda_archs())}"'
        facts["NVCC_VERSION"] = f'"{config.nvcc_version(nvcc, torch)}"'
    defines = [f"-DLOWBIT_{name}={value}" for name, value in facts.items()]
    includes = [pybind11.get_include(), sysconfig.get_paths()["include"]]
    flags = [*CXX_FLAGS, *defines, *(flag for path in includes for flag in ("-isystem", path))]
    return Recipe(config.cxx(), flags, [])


def recipes() -> dict[str, Recipe]:
    """Recipe of each library that this build makes, by extension name."""
    nvcc = config.choose_nvcc()
    made = {"lowbit._ops_cpu": cpu_recipe()}
    if nvcc:
        made["lowbit._ops_cuda"] = cuda_recipe(nvcc)
    if can_build_info_module():
        made["lowbit._C"] = info_recipe(nvcc)
    return made


def ninja_edge(out: Path, rule: str, inputs: list[str], compiler: str, flags: list[str]) -> str:
    quoted = shlex.join(flags).replace("$", "$$")
    return (
        f"build {out.as_posix()}: {rule} {' '.join(inputs)}\n"
        f"  compiler = {compiler}\n"
        f"  flags = {quoted}\n"
    )


def library_edges(out: Path, recipe: Recipe, files: list[str]) -> str:
    text, objects = "", []
    for source in files:
        made = BUILD / out.stem.split(".")[0] / f"{Path(source).name}.o"
        text += ninja_edge(made, "compile", [source], recipe.compiler, recipe.compile_flags)
        objects.append(made.as_posix())
    return text + ninja_edge(out, "link", objects, recipe.compiler, recipe.link_flags)


def ninja_program() -> str:
    try:
        from ninja import BIN_DIR
    except ImportError:
        BIN_DIR = ""
    found = shutil.which("ninja", path=BIN_DIR) or shutil.which("ninja")
    return found or sys.exit("lowbit: the build needs ninja, found none; pip install ninja")


def failure_hint(command: str) -> str:
    if "nvcc" in command:
        return "MAX_JOBS=1 if memory ran out, LOWBIT_CUDA=0 leaves out the CUDA kernels"
    return f"CXX must be a C++20 compiler, MAX_JOBS=1 if memory ran out; {config.PURE_HINT}"


def run_ninja(ninja_file: Path) -> None:
    """Runs the build from the root, echoing it; on failure raises with the first failed command."""
    command = [ninja_program(), "-f", str(ninja_file), "-j", str(config.job_count())]
    failed, after_failed = None, False
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as ninja:
        for line in ninja.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            failed = failed or (line.strip() if after_failed else None)
            after_failed = line.startswith("FAILED: ")
    if ninja.returncode:
        failed = failed or shlex.join(command)
        raise CompileError(f"lowbit: this command failed: {failed}\nhint: {failure_hint(failed)}")


class NativeBuild(build_ext):
    """build_ext that hands all extensions to one ninja run."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.rpartition(".")[2].startswith("_ops_"):
            return fullname.replace(".", os.sep) + ".so"  # no Python in it, so no Python tag
        return super().get_ext_filename(fullname)

    def run(self) -> None:
        made = recipes()
        left_out = [ext for ext in self.extensions if ext.name not in made]
        self.extensions = [ext for ext in self.extensions if ext.name in made]
        self.recipes = made
        super().run()
        for ext in left_out:
            self.remove_stale(ext.name)

    def remove_stale(self, name: str) -> None:
        """An earlier in-place build's library would otherwise still be loaded."""
        if self.inplace:
            Path(self.get_ext_fullpath(name)).unlink(missing_ok=True)

    def build_extensions(self) -> None:
        start = time.monotonic()
        text, outputs = f"builddir = {BUILD.as_posix()}\n{NINJA_RULES}", {}
        for ext in self.extensions:
            out = BUILD / Path(self.get_ext_filename(ext.name)).name
            text += library_edges(out, self.recipes[ext.name], ext.sources)
            outputs[ext.name] = ROOT / out
        ninja_file = ROOT / BUILD / "build.ninja"
        ninja_file.parent.mkdir(parents=True, exist_ok=True)
        ninja_file.write_text(text)
        run_ninja(ninja_file)
        for name, built in outputs.items():
            target = Path(self.get_ext_fullpath(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, target)
        config.say(f"native build took {time.monotonic() - start:.1f} s")
