"""Compiles the conformance programs, once for each content of their inputs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.build_cache import CSRC
from tests.facts.cubins import Compilation
from tests.host_sim import compiler

HERE = Path(__file__).resolve().parent
# Each case runs once: what -O2 adds to the compilation it never gives back.
FLAVOURS = {**compiler.FLAVOURS, "plain": ("-O1",)}


def model_program(
    source: Path = HERE / "run.cu",
    csrc: Path = CSRC,
    flavour: str = "plain",
    flags: Iterable[str] = (),
) -> Path:
    """A CUDA source for the host model over the texts in `csrc`.

    Raises FileNotFoundError where there is no C++ compiler, CompileError with what it said.
    """
    return compiler.compile_sources(source.stem, [source], [csrc], [*FLAVOURS[flavour], *flags])


@dataclass(frozen=True)
class Program(Compilation):
    """A program for GPUs of one architecture, in the cache of cubins."""

    suffix: ClassVar[str] = ".program"

    def kind(self) -> tuple[str, ...]:
        return ("--resource-usage", "-gencode", f"arch=compute_{self.arch},code=sm_{self.arch}")


def device_program(arch: str, source: Path = HERE / "run.cu") -> Path:
    """The same source for GPUs of one architecture ("80", "90a", ...)."""
    return Program(source, arch, (CSRC,)).made()


@dataclass(frozen=True)
class Ptx(Compilation):
    """The PTX of one source for one architecture, in the cache of cubins."""

    suffix: ClassVar[str] = ".ptx"

    def kind(self) -> tuple[str, ...]:
        return ("-ptx", f"-arch=compute_{self.arch}")


def ptx(source: Path, arch: str, csrc: Path = CSRC) -> str:
    return Ptx(source, arch, (csrc,)).made().read_text()
