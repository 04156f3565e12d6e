"""The CUDA examples as a library for torch, as the build makes _ops_cuda.so of the kernels."""

import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from tests.facts.cubins import (
    CSRC,
    FLAGS,
    ROOT,
    TORCH_INCLUDE,
    TORCH_TARGET,
    Compilation,
    CompileError,
    compile_all,
    find_nvcc,
)

EXAMPLES = ROOT / "examples" / "cuda"
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
    flags = (*FLAGS, TORCH_TARGET)
    compiled = compile_all(
        Object(source, arch, (CSRC,), (TORCH_INCLUDE,), flags) for source in sources
    )
    objects = [each.result() for each in compiled]
    exports = (CSRC / "exports.map").read_text()
    known = (CUDART, LINKER_OPTIONS, exports, torch.__version__)
    state = hashlib.sha256(repr(known).encode())
    for each in objects:
        state.update(each.name.encode())  # holds the key of its inputs
    made = CACHE / state.hexdigest()[:20] / f"examples.sm_{arch}.so"
    if not made.is_file():
        _link(objects, made)
    return made


def _link(objects: list[Path], made: Path) -> None:
    made.parent.mkdir(parents=True, exist_ok=True)
    linker = [f"-Xlinker={option}" for option in LINKER_OPTIONS]
    flags = [CUDART, *linker, f"-L{TORCH_INCLUDE.parent / 'lib'}", "-ltorch"]
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        unfinished = Path(folder, made.name)
        command = [find_nvcc(), "-shared", "-o", unfinished, *objects, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(done.stdout + done.stderr)
        unfinished.replace(made)
