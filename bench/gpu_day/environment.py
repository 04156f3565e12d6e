"""What the results were taken on: GPU, driver, clocks as found, versions, commit."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.gpu_day import machine
from lowbit.bench import info

_FIELDS = (
    *("name", "driver_version", "vbios_version", "compute_cap", "memory.total", "memory.used"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit"),
    *("temperature.gpu", "utilization.gpu", "mig.mode.current"),
)
_PACKAGES = ("torch", "triton", "numpy", "setuptools", "ninja", "pybind11", "pytest")


def main(argv: list[str] | None = None) -> int:
    """Write the facts; 1 where torch sees no GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.environment")
    parser.add_argument("file", type=Path)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--without-gpu", action="store_true")
    args = parser.parse_args(argv)
    args.file.write_text(json.dumps(facts(args.commit), indent=1, default=str) + "\n")
    if args.without_gpu or torch.cuda.is_available():
        print(f"{_device()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
        return 0
    print("torch sees no GPU")
    return 1


def facts(commit: str) -> dict[str, Any]:
    """Everything by name."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "gpu": dict(zip(_FIELDS, machine.query(",".join(_FIELDS)), strict=False)),
        "cuda": torch.version.cuda,
        "nvcc": _first_line_of_version("nvcc"),
        "compute-sanitizer": _first_line_of_version("compute-sanitizer"),
        "compiler": _first_line_of_version("g++"),
        "packages": {name: _package(name) for name in _PACKAGES},
        "lowbit": info.info(),
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _first_line_of_version(name: str) -> str:
    found = machine.program(name)
    if not found:
        return "not found"
    done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20)
    lines = [line for line in done.stdout.splitlines() if "ersion" in line or "release" in line]
    return (lines or done.stdout.splitlines() or ["unknown"])[0].strip()


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
