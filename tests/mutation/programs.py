"""Programs that judge the mutants of C++ kernel texts: their builds, seeds, and runs."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests import build_cache
from tests.build_cache import ROOT
from tests.host_sim import compiler
from tests.mutation.cpp_rules import cpp_mutants
from tests.mutation.mutants import Kill, Mutant
from tests.mutation.schemata import PRELUDE, VARIABLE, with_all

CACHE = ROOT / "build" / "mutation"
CORES = 2
PRELUDE_FILE = "mutant.h"
CRASH = "signal"
# Of the processor: only a run without an end takes as many, be the machine as busy as it may.
SECONDS, SECONDS_OF_A_SEED = 4, 4


@dataclass(frozen=True)
class Program:
    check: str  # the source of main()
    texts: tuple[str, ...]  # whose mutants it judges
    # build -> how many a mutant must pass to survive
    seeds: dict[str, int] = field(hash=False)
    include: tuple[str, ...] = ("csrc",)
    defines: tuple[str, ...] = ("-DLOWBIT_HOST_MODEL",)

    @property
    def missing(self) -> str | None:
        """What it takes to judge and is not there."""
        return None if compiler.find_compiler() else "no C++ compiler is installed; set CXX"

    def mutants(self) -> list[Mutant]:
        return [m for text in self.texts for m in cpp_mutants(text, read(text))]

    def numbers(self) -> dict[str, int]:
        """Mutant -> its number in the program; 0 is the kernel as it is."""
        return {mutant.id: number for number, mutant in enumerate(self.mutants(), 1)}

    # ---- verdicts ----

    def hunt(self, ids: list[str]) -> Iterator[tuple[str, Kill | None]]:
        """The first kill of each, builds and seeds in order; None for what survives them all."""
        numbers = {"": 0, **self.numbers()}
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(lambda flavour: build(self, flavour), self.seeds))
            yield from zip(ids, pool.map(self._hunt, map(numbers.get, ids)), strict=True)

    def _hunt(self, number: int) -> Kill | None:
        crash = None
        for flavour, most in self.seeds.items():
            kill = self._hunt_in(flavour, most, number)
            if kill is not None and not kill.words.startswith(CRASH):
                return kill
            # A crash in passing says little; the builds to come say where it went wrong.
            crash = crash or kill
        return crash

    def _hunt_in(self, flavour: str, most: int, number: int) -> Kill | None:
        first = 1
        while first <= most:
            words = run(build(self, flavour), number, first, first)
            if words is not None:
                return self._narrow(Kill(flavour, (first, first), words), number)
            first *= 2
        return None

    def _narrow(self, kill: Kill, number: int) -> Kill:
        """The same kill by fewer seeds, half as many each time."""
        first, count = kill.seeds
        for part in ((first, count // 2), (first + count // 2, count - count // 2)):
            words = run(build(self, kill.build), number, *part) if count > 1 else None
            if words is not None:
                return self._narrow(Kill(kill.build, part, words), number)
        return kill

    def replay(self, kills: dict[str, Kill]) -> Iterator[tuple[str, str | None]]:
        """What each says now of the build and seeds that killed it."""
        numbers = self.numbers()
        for flavour in dict.fromkeys(kill.build for kill in kills.values()):
            build(self, flavour)

        def again(item: tuple[str, Kill]) -> str | None:
            id, kill = item
            return run(build(self, kill.build), numbers[id], *kill.seeds)

        with ThreadPoolExecutor(CORES) as pool:
            yield from zip(kills, pool.map(again, kills.items()), strict=True)


def read(text: str) -> str:
    return (ROOT / text).read_text()


# ---- building ----


@cache
def build(program: Program, flavour: str) -> Path:
    """The executable with all mutants; compiled once for what the compiler reads."""
    command = _compiler(program, flavour)
    with tempfile.TemporaryDirectory() as folder:
        _write_tree_with_mutants(program, Path(folder))
        listing = subprocess.run(
            [*command, "-E", "-P"], cwd=folder, capture_output=True, check=True
        )
        known = (build_cache.version(command[0]), command)
        key = build_cache.key(known, [listing.stdout])
        name = f"{Path(program.check).stem}-{flavour}"
        return build_cache.made(
            CACHE, key, name, lambda output: compiler.run(command, output, Path(folder))
        )


def _compiler(program: Program, flavour: str) -> list[str]:
    flags = [*compiler.LANGUAGE, *compiler.FLAVOURS[flavour]]
    flags += ["-w", "-g0"]  # mutants are odd texts; of a report its words are kept, not its lines
    flags += ["-include", PRELUDE_FILE, *program.defines, *(f"-I{f}" for f in program.include)]
    return [compiler.require_compiler(), *flags, program.check]


def _write_tree_with_mutants(program: Program, tree: Path) -> None:
    """A copy of the sources, the program's texts with their mutants in it."""
    for folder in ("csrc", "examples/cuda", "tests/host_sim", "tests/mutation"):
        ignored = shutil.ignore_patterns("*.py", "*.json", "__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    numbers = program.numbers()
    (tree / PRELUDE_FILE).write_text(PRELUDE)
    for text in program.texts:
        mutants = cpp_mutants(text, read(text))
        numbered = {numbers[mutant.id]: mutant.change for mutant in mutants}
        (tree / text).write_text(with_all(read(text), numbered))


# ---- running ----


def run(program: Path, number: int, first: int, count: int) -> str | None:
    """What a run of these seeds says about the mutant's mistake; None where it sees none."""
    environment = {
        **os.environ,
        VARIABLE: str(number),
        # The leak checker's own exit status would hide that of the program.
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    limit = SECONDS + SECONDS_OF_A_SEED * count
    done = subprocess.run(
        ["sh", "-c", f'ulimit -t {limit}; exec "$@"', "sh", program, str(first), str(count)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == -signal.SIGXCPU or done.returncode == -signal.SIGKILL:
        return "no end"
    return None if done.returncode == 0 else _words(done.stdout + done.stderr, done.returncode)


_REPORTS = (
    r"(wrong value)",
    r"ERROR: AddressSanitizer: ([\w-]+)",
    r"runtime error: ([^\n]+)",
    r"ThreadSanitizer: ([\w ]+)",
    r"what\(\):\s+([^\n]+)",
    r"seed \d+: ([^\n]+)",
)


def _words(output: str, status: int) -> str:
    """The first words of the report, without numbers, which other compilers may have others of."""
    for pattern in _REPORTS:
        if found := re.search(pattern, output):
            words = re.sub(r"0x[0-9a-f]+|\d+", "#", found[1]).strip()
            return " ".join(words.split()[:12])
    return f"{CRASH} {-status}" if status < 0 else f"exit status {status}"
