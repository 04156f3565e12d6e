"""Cubins, and else what nvcc makes of a source, compiled once for each content of the inputs."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "cubins"
TORCH_INCLUDE = Path(torch.__file__).parent / "include"
ARCHS = ("80", "89", "90a", "100a", "120a")

# Those of _native_build.py; the ones for the host's compiler do not matter to a cubin.
FLAGS = ("-O3", "-std=c++20", "-DUSE_CUDA")
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"

# ptxas only remarks on it when it makes wgmma wait for each other (C7510 to C7517).
SLOWED = re.compile(r"Potential Performance Loss|serialized|warpgroup\.wait is injected")
UNUSED_DAYS = 30


class CompileError(RuntimeError):
    """nvcc refused a source, or compiled it to something slow."""


@cache
def find_nvcc() -> Path | None:
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"))
    on_path = shutil.which("nvcc")
    candidates = [Path(home, "bin/nvcc") for home in homes if home]
    candidates += [Path(on_path)] if on_path else []
    candidates += [Path("/usr/local/cuda/bin/nvcc")]
    return next((nvcc for nvcc in candidates if nvcc.is_file()), None)


@cache
def _nvcc_version(nvcc: Path) -> str:
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout


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

    def inputs(self) -> list[Path]:
        """The source and every file of ours that it can reach, whatever the preprocessor skips."""
        found, waiting = set(), [self.source.resolve()]
        while waiting:
            file = waiting.pop()
            if file not in found:
                found.add(file)
                waiting += self._included_by(file)
        return sorted(found)

    def _included_by(self, file: Path) -> Iterator[Path]:
        for name in re.findall(r'^\s*#\s*include\s*["<]([^">]+)[">]', file.read_text(), re.M):
            places = (folder / name for folder in (file.parent, *self.include))
            included = next((place for place in places if place.is_file()), None)
            if included:
                yield included.resolve()

    def key(self, nvcc: Path) -> str:
        system = torch.__version__ if self.system else ""
        known = (_nvcc_version(nvcc), system, self.kind(), self.flags)
        state = hashlib.sha256(repr(known).encode())
        for file in self.inputs():
            content = file.read_bytes()
            state.update(f"{file.name} {len(content)}\n".encode() + content)
        return state.hexdigest()[:20]

    def command(self, nvcc: Path, output: Path) -> list[str]:
        folders = [f"-I{folder}" for folder in self.include]
        folders += [part for folder in self.system for part in ("-isystem", str(folder))]
        what = [*self.kind(), *self.flags, str(self.source)]
        return [str(nvcc), *what, *folders, "-o", str(output)]

    def cubin(self) -> Path:
        """What nvcc makes, from the cache if no input has changed; ptxas's log lies beside it.

        Raises CompileError with all that nvcc said, FileNotFoundError where there is no nvcc.
        """
        nvcc = find_nvcc()
        if nvcc is None:
            raise FileNotFoundError("nvcc is not installed; set CUDA_HOME to a CUDA toolkit")
        made = self.folder / f"{self.source.stem}.sm_{self.arch}.{self.key(nvcc)}{self.suffix}"
        if made.is_file():
            made.touch()
        else:
            self._compile(nvcc, made)
            _remove_unused(self.folder)
        log = made.with_suffix(".log").read_text()
        if SLOWED.search(log):
            raise CompileError(f"{self.source}: ptxas holds wgmma up\n{log}")
        return made

    def _compile(self, nvcc: Path, made: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as unfinished:
            cubin, log = Path(unfinished, "cubin"), Path(unfinished, "log")
            command = self.command(nvcc, cubin)
            done = subprocess.run(command, capture_output=True, text=True)
            log.write_text(done.stdout + done.stderr)
            if done.returncode:
                raise CompileError(f"{shlex.join(command)}\n{log.read_text()}")
            log.replace(made.with_suffix(".log"))  # first: no cubin is without its log
            cubin.replace(made)


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 86400
    for made in folder.glob("*.sm_*"):
        if made.suffix != ".log" and made.stat().st_mtime < oldest:
            made.unlink(missing_ok=True)
            made.with_suffix(".log").unlink(missing_ok=True)


def kernel_sources() -> list[str]:
    """Every .cu with kernels, those of the examples too, from the root of the tree."""
    folders = (CSRC / "cuda", ROOT / "examples" / "cuda")
    paths = (path for folder in folders for path in folder.glob("*.cu"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def of_kernels(source: str, arch: str) -> Compilation:
    """One of kernel_sources() as the build compiles it."""
    return Compilation(ROOT / source, arch, (CSRC,), (TORCH_INCLUDE,), (*FLAGS, TORCH_TARGET))


def compile_all(compilations: Iterable[Compilation]) -> list[Future[Path]]:
    """Starts all of them, one nvcc for each core at a time; `result()` gives the cubin."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    cubins = [pool.submit(each.cubin) for each in compilations]
    pool.shutdown(wait=False)
    return cubins
