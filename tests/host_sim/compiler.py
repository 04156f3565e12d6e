"""g++ for the host model: its flags, the three builds, and what it has made, from a cache."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests import build_cache, torch_files

# Rounding as on a GPU. GCC has noted since 4.6 how it passes parameters aligned to 64 bytes.
LANGUAGE = ("-std=c++20", "-ffp-contract=off", "-Wno-psabi")
STRICT = ("-Wall", "-Werror")
HOST_MODEL = "-DLOWBIT_HOST_MODEL"

# Three builds for three kinds of mistakes: wrong values under many schedules; accesses out of
# bounds or misaligned; accesses that nothing orders. Reports need lines alone (-g1). Behind the
# checks of asan an optimizer finds much to do and little to gain: with -Og it compiles in half the
# time and runs a quarter longer, while tsan would run twice as long.
FLAVOURS = {
    "plain": ("-O2",),
    "asan": ("-Og", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-O1", "-g1", "-fsanitize=thread"),
}
CACHE = build_cache.ROOT / "build" / "host_sim"


def find_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def require_compiler() -> str:
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("a C++ compiler is not installed; set CXX to one")
    return compiler


def compile_sources(
    name: str,
    sources: Iterable[Path],
    include: Iterable[Path],
    flags: Iterable[str],
    link: Iterable[str] = (),
    folder: Path = CACHE,
) -> Path:
    """The program or library `name` of these sources over the texts in the folders `include`.

    Raises FileNotFoundError where there is no C++ compiler, CompileError with what it said.
    """
    compiler, sources, include, link = require_compiler(), [*sources], [*include], [*link]
    flags = [*LANGUAGE, *STRICT, HOST_MODEL, *flags]
    known = (build_cache.version(compiler), torch_files.VERSION, flags, link)
    key = build_cache.key(known, build_cache.inputs(sources, include))
    folders = [f"-I{folder}" for folder in include]
    # Behind "-x c++", as the compiler does not know the suffix .cu.
    files = ["-x", "c++", *map(str, sources), "-x", "none"]
    command = [compiler, *flags, *folders, *files, *link]
    return build_cache.made(folder, key, name, lambda output: run(command, output))


def run(command: Iterable[str], output: Path, folder: Path | None = None) -> None:
    """Lets a compiler write to `output`."""
    done = subprocess.run([*command, "-o", str(output)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise build_cache.CompileError(done.stderr)
