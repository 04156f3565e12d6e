"""The CUDA examples as a library for torch, as the build makes _ops_cuda.so of the kernels."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests import build_cache, torch_files
from tests.build_cache import CSRC, EXAMPLES, ROOT, CompileError
from tests.facts.cubins import FLAGS, Compilation, compile_all, find_nvcc, require_nvcc

CACHE = ROOT / "build" / "cuda_examples"
# Those of _native_build.py, which a cubin can do without.
HOST_FLAGS = "-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off"
CUDART = "-cudart=static"
LINKER_OPTIONS = ("--no-as-needed", "--version-script=csrc/exports.map")


@dataclass(frozen=True)
class Object(Compilation):
    """The object of one source for one architecture, in the cache of cubins."""

    suffix: ClassVar[str] = ".o"

    def kind(self) -> tuple[str, ...]:
        return ("-c", "-gencode", f"arch=compute_{self.arch},code=sm_{self.arch}", HOST_FLAGS)


def build_examples(arch: str) -> Path:
    """The library that registers examples/cuda for GPUs of one architecture ("80", "90a", ...).

    Raises CompileError with all that nvcc said, FileNotFoundError where there is no nvcc.
    """
    sources = [*sorted(EXAMPLES.glob("*.cu")), EXAMPLES / "registration.cpp"]
    flags = (*FLAGS, torch_files.TARGET)
    compiled = compile_all(
        Object(source, arch, (CSRC,), (torch_files.INCLUDE,), flags) for source in sources
    )
    objects = [each.result() for each in compiled]
    exports = CSRC / "exports.map"
    known = (build_cache.version(require_nvcc()), CUDART, LINKER_OPTIONS, torch_files.VERSION)
    key = build_cache.key(known, [exports, *objects])
    name = f"examples.sm_{arch}.so"
    return build_cache.made(CACHE, key, name, lambda output: _link(objects, output))


def _link(objects: list[Path], output: Path) -> None:
    linker = [f"-Xlinker={option}" for option in LINKER_OPTIONS]
    flags = [CUDART, *linker, f"-L{torch_files.LIBRARIES}", "-ltorch"]
    command = [find_nvcc(), "-shared", "-o", output, *objects, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stdout + done.stderr)
