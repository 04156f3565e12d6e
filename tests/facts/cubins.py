"""Cubins, and else what nvcc makes of a source, compiled once for each content of the inputs."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from tests import build_cache, torch_files
from tests.build_cache import CSRC, EXAMPLES, ROOT, CompileError

CACHE = ROOT / "build" / "cubins"
ARCHS = ("80", "89", "90a", "100a", "120a")

# Those of _native_build.py; the ones for the host's compiler do not matter to a cubin.
FLAGS = ("-O3", "-std=c++20", "-DUSE_CUDA")

# ptxas only remarks on it when it makes wgmma wait for each other (C7510 to C7517).
SLOWED = re.compile(r"Potential Performance Loss|serialized|warpgroup\.wait is injected")


@cache
def find_nvcc() -> Path | None:
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))
    on_path = shutil.which("nvcc")
    candidates = [Path(home, "bin/nvcc") for home in homes if home]
    candidates += [Path(on_path)] if on_path else []
    candidates += [Path("/usr/local/cuda/bin/nvcc")]
    return next((nvcc for nvcc in candidates if nvcc.is_file()), None)


def require_nvcc() -> Path:
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("nvcc is not installed; set CUDA_HOME to a CUDA toolkit")
    return nvcc


@dataclass(frozen=True)
class Compilation:
    """One source for one architecture."""

    suffix: ClassVar[str] = ".cubin"

    source: Path
    arch: str  # "80", "90a", ...
    include: tuple[Path, ...] = ()  # folders whose files count as inputs
    system: tuple[Path, ...] = ()  # folders known by torch's version alone
    flags: tuple[str, ...] = FLAGS
    folder: Path = CACHE

    def kind(self) -> tuple[str, ...]:
        """The options of nvcc that say what it makes of the source."""
        return ("-cubin", f"-arch=sm_{self.arch}", "--resource-usage")

    def key(self, nvcc: Path) -> str:
        system = torch_files.VERSION if self.system else ""
        known = (build_cache.version(nvcc), system, self.kind(), self.flags)
        return build_cache.key(known, build_cache.inputs([self.source], self.include))

    def command(self, nvcc: Path) -> list[str]:
        folders = [f"-I{folder}" for folder in self.include]
        folders += [part for folder in self.system for part in ("-isystem", str(folder))]
        what = [*self.kind(), *self.flags, str(self.source)]
        return [str(nvcc), *what, *folders]

    def made(self) -> Path:
        """What nvcc makes, from the cache if no input has changed; ptxas's log lies beside it.

        Raises CompileError with all that nvcc said, FileNotFoundError where there is no nvcc.
        """
        nvcc = require_nvcc()
        name = f"{self.source.stem}.sm_{self.arch}{self.suffix}"
        file = build_cache.made(
            self.folder, self.key(nvcc), name, lambda output: run(self.command(nvcc), output)
        )
        log = _log(file).read_text()
        if SLOWED.search(log):
            raise CompileError(f"{self.source}: ptxas holds wgmma up\n{log}")
        return file


def run(command: Iterable[str], output: Path) -> None:
    """Lets nvcc write to `output`, and what it says beside it."""
    command = [*command, "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    _log(output).write_text(done.stdout + done.stderr)
    if done.returncode:
        raise CompileError(f"{shlex.join(command)}\n{_log(output).read_text()}")


def _log(made: Path) -> Path:
    return made.with_name(f"{made.name}.log")


def kernel_sources() -> list[str]:
    """Every .cu with kernels, those of the examples too, from the root of the tree."""
    folders = (CSRC / "cuda", EXAMPLES)
    paths = (path for folder in folders for path in folder.glob("*.cu"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def of_kernels(source: str, arch: str) -> Compilation:
    """One of kernel_sources() as the build compiles it."""
    return Compilation(
        ROOT / source, arch, (CSRC,), (torch_files.INCLUDE,), (*FLAGS, torch_files.TARGET)
    )


def compile_all(compilations: Iterable[Compilation]) -> list[Future[Path]]:
    """Starts all of them, an nvcc for each core at a time; `result()` gives the file."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    made = [pool.submit(each.made) for each in compilations]
    pool.shutdown(wait=False)
    return made
