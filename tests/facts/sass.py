"""What a cubin says about its kernels: resources, instructions, the hot loop."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.facts.cubins import find_nvcc
from tests.facts.loops import Instruction, Loop, hot_loop
from tests.facts.occupancy import RESERVED_SHARED


@dataclass(frozen=True)
class KernelFacts:
    """One kernel of one cubin."""

    name: str  # as written, with template arguments, without namespaces
    symbol: str  # mangled
    capability: int  # 80, 90, ...
    registers: int  # of a thread
    stack: int  # bytes of a thread
    shared: int  # bytes of a block, declared by the kernel; the reserved KiB is left out
    opcodes: Counter  # with modifiers
    loop: Loop | None

    @property
    def plain(self) -> Counter:
        """Opcodes without their modifiers."""
        counts = Counter()
        for opcode, count in self.opcodes.items():
            counts[opcode.partition(".")[0]] += count
        return counts

    @property
    def spill_stores(self) -> int:
        """Stores to local memory: spilled registers, or arrays that found none."""
        return self.plain["STL"]

    @property
    def spill_loads(self) -> int:
        return self.plain["LDL"]

    def has(self, opcode: str) -> bool:
        """Whether an instruction has all parts of `opcode`: STG.128 is found in STG.E.128."""
        wanted, *modifiers = opcode.split(".")
        parts = (present.split(".") for present in self.opcodes)
        return any(first == wanted and set(modifiers) <= set(rest) for first, *rest in parts)


@cache
def find_cuobjdump() -> Path | None:
    """From the toolkit, else from the Triton wheel, which brings its own."""
    nvcc, triton = find_nvcc(), importlib.util.find_spec("triton")
    wheels = triton.submodule_search_locations or [] if triton else []
    found = [nvcc.with_name("cuobjdump")] if nvcc else []
    found += [Path(folder, "backends/nvidia/bin/cuobjdump") for folder in wheels]
    on_path = shutil.which("cuobjdump")
    found += [Path(on_path)] if on_path else []
    return next((tool for tool in found if tool.is_file()), None)


def missing_tools() -> str | None:
    """Why no facts can be had here; None if they can."""
    if find_nvcc() is None:
        return "nvcc is not installed"
    if find_cuobjdump() is None:
        return "cuobjdump is neither in the CUDA toolkit nor in a Triton wheel"
    if shutil.which("c++filt") is None:
        return "c++filt is not installed; install binutils"
    return None


def _cuobjdump(option: str, cubin: Path) -> str:
    tool = find_cuobjdump()
    if tool is None:
        raise FileNotFoundError(
            "cuobjdump is neither in the CUDA toolkit nor in a Triton wheel; pip install triton"
        )
    return subprocess.run([tool, option, cubin], capture_output=True, text=True, check=True).stdout


def short_name(demangled: str) -> str:
    """`void a::f<1, (a::E)2>(a::P)` becomes `f<1, 2>`."""
    text = demangled.replace("(anonymous namespace)::", "")
    text = re.sub(r"\((?:\w+::)*\w+\)(?=-?\d)", "", text)  # the type of an enumerator
    text = re.sub(r"\b(?:\w+::)+", "", text)
    depth, end = 0, len(text)
    for i, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            end = i
            break
    return re.sub(r"^void ", "", text[:end])


def demangle(symbols: list[str]) -> list[str]:
    text = "\n".join(symbols)
    done = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[: len(symbols)]


# Address, guard, opcode, operands; from 10.0 on scheduling hints follow (?trans1, &req={0}).
INSTRUCTION = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;?&]*?)\s*(?:\s[?&][^;]*)?;"
)


INSTRUCTION_BYTES = 16


def read_code(listing: str) -> list[Instruction]:
    """The instructions of one kernel. Raises ValueError where one cannot be read."""
    code = [
        Instruction(int(address, 16), predicate.strip(), opcode, operands)
        for address, predicate, opcode, operands in INSTRUCTION.findall(listing)
    ]
    for i, instruction in enumerate(code):
        if instruction.address != i * INSTRUCTION_BYTES:
            expected = i * INSTRUCTION_BYTES
            raise ValueError(
                f"the listing must have an instruction at {expected:#x}, "
                f"got {instruction.address:#x}"
            )
    return code


def _listings(cubin: Path) -> Iterator[tuple[int, str, list[Instruction]]]:
    """(compute capability, symbol, code) of each kernel."""
    text = _cuobjdump("-sass", cubin)
    capability = re.search(r"code for sm_(\d+)", text)
    parts = re.split(r"Function : (\S+)", text)[1:]
    for symbol, listing in zip(parts[::2], parts[1::2], strict=True):
        yield int(capability[1]), symbol, read_code(listing)


def _resources(cubin: Path) -> dict[str, dict[str, int]]:
    """REG, STACK, SHARED, ... by symbol."""
    text = _cuobjdump("--dump-resource-usage", cubin)
    return {
        symbol: {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", line)}
        for symbol, line in re.findall(r"Function (\S+):\n\s*(.*)", text)
    }


def kernel_facts(cubin: Path | bytes) -> dict[str, KernelFacts]:
    """Facts of each kernel in a cubin of any compiler, a file or its content, by short name.

    Raises FileNotFoundError where there is no cuobjdump.
    """
    if isinstance(cubin, bytes):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            return _read_facts(Path(file.name))
    return _facts_of_file(cubin)


@cache
def _facts_of_file(cubin: Path) -> dict[str, KernelFacts]:
    """To read a listing of many kernels takes seconds, and what the cache keeps never changes."""
    return _read_facts(cubin)


def _read_facts(cubin: Path) -> dict[str, KernelFacts]:
    resources, listings = _resources(cubin), list(_listings(cubin))
    names = [short_name(text) for text in demangle([symbol for _, symbol, _ in listings])]
    if len(set(names)) < len(names):
        raise ValueError(f"{cubin}: kernels must differ in their short names, got {sorted(names)}")
    facts = {}
    for name, (capability, symbol, code) in zip(names, listings, strict=True):
        used = resources[symbol]
        reserved = RESERVED_SHARED if capability >= 90 else 0  # ptxas counts it from 9.0 on
        facts[name] = KernelFacts(
            name=name,
            symbol=symbol,
            capability=capability,
            registers=used["REG"],
            stack=used["STACK"],
            shared=max(0, used["SHARED"] - reserved),
            opcodes=Counter(instruction.opcode for instruction in code),
            loop=hot_loop(code),
        )
    return facts
