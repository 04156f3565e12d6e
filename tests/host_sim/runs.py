"""Runs of the check programs of the host model."""

import os
import subprocess
from pathlib import Path


def run(program: Path, first: int, count: int) -> subprocess.CompletedProcess:
    """Random cases of `count` seeds from `first` on."""
    # The leak checker's own exit status would hide that of the program.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [program, str(first), str(count)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
