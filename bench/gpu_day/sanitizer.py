"""compute-sanitizer over calls of each kernel. A tool counts once it finds a planted fault.

Some machines refuse the tools, or let them run without finding anything. So each one first looks
at planted.cu; where it misses the fault, its silence about the kernels would say nothing. The tools
run side by side, since most of their time is that of the host.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.gpu_day import machine
from bench.gpu_day.steps import UNSUPPORTED

TOOLS = ("memcheck", "racecheck", "synccheck")
_PLANTED = Path(__file__).with_name("planted.cu")
_FOUND = 99  # the exit status that a tool is asked for when it finds something
_SECONDS = 22  # of each of the three runs, one after the other, in a step of 70
_LINES = 30

CLEAN, FAULTY, LATE, BLIND = "clean", "FAULTY", "out of time", "n/a"


def main() -> int:
    """1 when a tool found something in the kernels or did not end, 77 when none can be used."""
    compute_sanitizer = machine.program("compute-sanitizer")
    if compute_sanitizer is None:
        print("compute-sanitizer is not on this machine")
        return UNSUPPORTED
    with tempfile.TemporaryDirectory() as folder:
        planted = _compiled(Path(folder, "planted"))
        look = functools.partial(verdict, compute_sanitizer, planted)
        with ThreadPoolExecutor() as pool:
            verdicts = dict(zip(TOOLS, pool.map(look, TOOLS), strict=True))
    print(", ".join(f"{tool} {word}" for tool, word in verdicts.items()))
    if {FAULTY, LATE} & set(verdicts.values()):
        return 1
    return 0 if CLEAN in verdicts.values() else UNSUPPORTED


def _compiled(program: Path) -> Path:
    arch = os.environ["LOWBIT_CUDA_ARCHS"]
    command = [machine.program("nvcc"), "-std=c++17", "-lineinfo"]
    command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-o"]
    subprocess.run([*command, str(program), str(_PLANTED)], check=True, timeout=_SECONDS)
    return program


def verdict(compute_sanitizer: str, planted: Path, tool: str) -> str:
    """What a tool says of the kernels, told at length on the way."""
    command = [compute_sanitizer, "--tool", tool, "--error-exitcode", str(_FOUND)]
    status, text = _run([*command, str(planted), tool])
    if status != _FOUND:
        _tell(f"{tool} does not find the planted fault on this machine (exit {status})", text)
        return BLIND
    status, text = _run([*command, sys.executable, "-m", "bench.gpu_day.launches"])
    _tell(f"{tool} of the kernels (exit {status})", text)
    if status is None:
        return LATE
    return FAULTY if status else CLEAN


def _run(command: list[str]) -> tuple[int | None, str]:
    """(exit status, what it printed); None when its time ran out.

    Each tensor has memory of its own: in torch's pool a tool cannot see where one ends.
    """
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
        return None, text.decode() if isinstance(text, bytes) else text
    return done.returncode, done.stdout


def _tell(what: str, text: str) -> None:
    print(f"== {what}", *text.splitlines()[-_LINES:], "", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
