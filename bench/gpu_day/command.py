"""The command: where things go, the environment of the steps, and the exit status."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.gpu_day import machine
from bench.gpu_day.runner import Day
from bench.gpu_day.steps import STEPS, SUMMARY
from bench.gpu_day.summary import Heading

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "build/gpu_day"
NO_GPU = "nvidia-smi shows no GPU; bench/gpu_day.sh --dry-run walks the steps without one"


def main(argv: list[str] | None = None) -> int:
    """0 when all steps passed, 1 when one did not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="bench/gpu_day.sh", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="every step without a GPU, in small")
    parser.add_argument("--commit", help="of this tree, where git cannot tell")
    args = parser.parse_args(argv)
    found = machine.gpu()
    if args.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(os.environ.get("OUT") or Path(folder, "results"))
            return _run(args, found or machine.STAND_IN, out, Path(folder, "lib"))
    if found is None:
        print(NO_GPU, file=sys.stderr)
        return 2
    out = Path(os.environ.get("OUT") or ROOT / "bench/results" / found.slug)
    return _run(args, found, out, LIB)


def _run(args: argparse.Namespace, gpu: machine.Gpu, out: Path, lib: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    commit = args.commit or _commit()
    words = {"python": sys.executable, "out": str(out), "lib": str(lib), "commit": commit}
    day = Day(ROOT, words, _environment(gpu, lib), args.dry_run)
    heading = Heading(gpu, commit, args.dry_run)
    for outcome in day.run(STEPS):
        print(outcome.line, flush=True)
        (out / SUMMARY).write_text(heading.summary(day.outcomes))
    if not args.dry_run:
        print(f"results in {out}; for docs/gpu_log.md:\n{heading.log_line(day.outcomes)}")
    return int(not all(outcome.passed for outcome in day.outcomes))


def _environment(gpu: machine.Gpu, lib: Path) -> dict[str, str]:
    """The built package goes before the plain sources, which serve where the build failed."""
    paths = (str(lib), str(ROOT / "python"), os.environ.get("PYTHONPATH", ""))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "LOWBIT_CUDA": "1",
        "LOWBIT_CUDA_ARCHS": gpu.arch,
        "HF_HUB_OFFLINE": "1",
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
