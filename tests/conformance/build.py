"""Compiles the conformance programs, once for each content of their inputs."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.facts.cubins import CSRC, ROOT, SLOWED, Compilation, CompileError, find_nvcc

HERE = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "conformance"
HOST_FLAGS = ("-std=c++20", "-Wall", "-Werror", "-Wno-psabi", "-ffp-contract=off")
FLAVOURS = {
    "plain": ("-O1",),
    "asan": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-O1", "-g", "-fsanitize=thread"),
}


def find_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def _made(name: str, command: list[str], source: Path, csrc: Path) -> Path:
    """What `command`, ending in "-o", makes of the source; from the cache where nothing changed."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
    options = [part.replace(str(csrc), "") for part in command[1:] if part != str(source)]
    state = hashlib.sha256(repr((version, options)).encode())
    for file in Compilation(source, "", (csrc,)).inputs():
        state.update(f"{file.name}\n".encode() + file.read_bytes())
    made = CACHE / state.hexdigest()[:20] / name
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            unfinished = Path(folder, name)
            done = subprocess.run([*command, unfinished], capture_output=True, text=True)
            said = done.stdout + done.stderr
            if done.returncode or SLOWED.search(said):
                raise CompileError(said)
            unfinished.replace(made)
    return made


def model_program(
    source: Path = HERE / "run.cu", csrc: Path = CSRC, flavour: str = "plain", flags=()
) -> Path:
    """A CUDA source for the host model over the texts in `csrc`.

    Raises FileNotFoundError where there is no C++ compiler, CompileError with what it said.
    """
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("a C++ compiler is not installed; set CXX to one")
    options = [*HOST_FLAGS, *FLAVOURS[flavour], *flags, "-DLOWBIT_HOST_MODEL", f"-I{csrc}"]
    command = [compiler, *options, "-x", "c++", str(source), "-o"]
    return _made(source.stem, command, source, csrc)


def device_program(arch: str, source: Path = HERE / "run.cu") -> Path:
    """The same for GPUs of one architecture ("80", "90a", ...)."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("nvcc is not installed; set CUDA_HOME to a CUDA toolkit")
    target = f"arch=compute_{arch},code=sm_{arch}"
    options = ["-std=c++20", "-O3", "--resource-usage", "-gencode", target, f"-I{CSRC}"]
    return _made(source.stem, [str(nvcc), *options, str(source), "-o"], source, CSRC)


@dataclass(frozen=True)
class Ptx(Compilation):
    """The PTX of one source for one architecture, in the cache of cubins."""

    suffix: ClassVar[str] = ".ptx"

    def kind(self) -> tuple[str, ...]:
        return ("-ptx", f"-arch=compute_{self.arch}")


def ptx(source: Path, arch: str, csrc: Path = CSRC) -> str:
    return Ptx(source, arch, (csrc,)).cubin().read_text()
