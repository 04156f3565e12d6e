"""Runs a check program of the host model under what its build needs."""

import os
import subprocess
from pathlib import Path

from tests.host_sim import builder

# The leak checker's own exit status would hide that of the program, and what a launch that failed
# leaves behind is no leak of the kernel.
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0"}


def run(program: Path, *arguments) -> subprocess.CompletedProcess:
    command = [program, *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **SANITIZERS}, capture_output=True, text=True, timeout=300
    )


def run_seeds(name: str, flavour: str, seeds: int) -> subprocess.CompletedProcess:
    """The check program over the texts of this checkout, with its first seeds."""
    return run(builder.build_program(name, flavour), 1, seeds)
