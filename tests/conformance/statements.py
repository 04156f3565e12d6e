"""The asm statements of the wrappers as the compiler sees them, and what they must say."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.build_cache import CSRC
from tests.facts.cubins import find_nvcc
from tests.host_sim.compiler import find_compiler

# By the first part of an instruction's name. Memory: it reads, writes or orders memory, so that it
# must not move across other accesses. Threads: lanes, registers or places of the machine take part
# that no operand names, so that it must not be dropped, doubled or moved across branches.
MEMORY = {"cp", "bar", "barrier", "ldmatrix", "stmatrix", "mbarrier", "ld", "st", "atom", "red",
          "fence", "wgmma", "prefetch"}  # fmt: skip
THREADS = {"mma", "elect", "setmaxnreg", "mapa", "mov", "selp", "setp"}
VALUES = {"lop3", "prmt", "cvt", "fma"}


@dataclass(frozen=True)
class Statement:
    function: str
    volatile: bool
    text: str
    clobbers: str

    @property
    def opcodes(self) -> list[str]:
        lines = (line.strip(" {}") for line in re.split(r"[;\n]", self.text))
        return [re.match(r"\w+", line)[0] for line in lines if line and line[0] != "."]

    def mistakes(self) -> Iterator[str]:
        for opcode in self.opcodes:
            if opcode not in MEMORY | THREADS | VALUES:
                yield f"{self.function}: {opcode} must stand in one of the sets of this check"
            if opcode not in VALUES and not self.volatile:
                yield f"{self.function}: asm with {opcode} must be volatile"
            if opcode in MEMORY and '"memory"' not in self.clobbers:
                yield f'{self.function}: asm with {opcode} must clobber "memory"'


def _balanced(text: str, begin: int) -> int:
    """The end of what the parenthesis at `begin` opens, strings left out of the count."""
    depth = 0
    for token in re.compile(r'"(?:\\.|[^"\\])*"|[()]').finditer(text, begin):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    raise ValueError("parentheses must be balanced")


def _sections(content: str) -> list[str]:
    """Between the colons of an asm statement that stand in no string and no parenthesis."""
    without = re.sub(r'"(?:\\.|[^"\\])*"|::(?=\w)', lambda m: "\0" * len(m[0]), content)
    colons, depth = [], 0
    for i, letter in enumerate(without):
        depth += (letter in "([") - (letter in ")]")
        if letter == ":" and depth == 0:
            colons.append(i)
    return [content[a + 1 : b] for a, b in zip([-1, *colons], [*colons, None], strict=True)]


def toolkit_include() -> Path | None:
    """The folder of cuda.h."""
    nvcc = find_nvcc()
    homes = [nvcc.resolve().parents[1]] if nvcc else []
    folders = [home / "include" for home in (*homes, Path("/usr/local/cuda"))]
    return next((folder for folder in folders if (folder / "cuda.h").is_file()), None)


def _preprocessed(header: Path, csrc: Path) -> str:
    defines = ["-D__CUDACC__", "-D__CUDA_ARCH__=900", "-D__CUDA_ARCH_FEAT_SM90_ALL"]
    includes = [f"-I{csrc}", f"-I{toolkit_include()}"]
    command = [find_compiler(), "-std=c++20", "-E", *defines, *includes, "-x", "c++", str(header)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    own = re.split(r'^# \d+ "(.*)".*$', text, flags=re.M)
    return "".join(part for file, part in zip(own[1::2], own[2::2], strict=True)
                   if file == str(header))  # fmt: skip


def statements(header: Path, csrc: Path = CSRC) -> Iterator[Statement]:
    text = _preprocessed(header, csrc)
    functions = list(re.finditer(r"(?:__forceinline__|always_inline)[^;{]*?(\w+)\(", text))
    for found in re.finditer(r"\basm( volatile)?\s*\(", text):
        content = text[found.end() : _balanced(text, found.end() - 1) - 1]
        sections = _sections(content) + [""] * 4
        words = "".join(re.findall(r'"((?:\\.|[^"\\])*)"', sections[0])).replace("\\n", "\n")
        function = [f[1] for f in functions if f.start() < found.start()][-1]
        yield Statement(function, bool(found[1]), words, sections[3])


def headers(csrc: Path = CSRC) -> list[Path]:
    return [csrc / "cuda" / "conversions.cuh", *sorted((csrc / "cuda" / "ptx").glob("*.cuh"))]


def device_functions(csrc: Path = CSRC) -> dict[str, str]:
    """Functions of the wrappers, each with the macro that guards its asm, or none."""
    guards: dict[str, str] = {}
    for header in headers(csrc):
        # As nvcc reads it: the bodies of the host model are left out.
        text = re.sub(
            r"^#ifdef LOWBIT_HOST_MODEL\n.*?^#(else|endif)\n",
            "",
            header.read_text(),
            flags=re.M | re.S,
        )
        found = list(re.finditer(r"^\s*LOWBIT_(?:HOST_)?DEVICE [^(;]*?(\w+)\(", text, re.M))
        ends = [f.start() for f in found[1:]] + [len(text)]
        for function, end in zip(found, ends, strict=False):
            guard = re.search(r"LOWBIT_ASM_SM\w+|LOWBIT_WGMMA_EACH_N", text[function.end() : end])
            guards.setdefault(function[1], "")
            guards[function[1]] += guard[0] if guard else ""
    return guards
