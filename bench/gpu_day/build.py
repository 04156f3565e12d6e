"""Builds the package into a folder by setup.py's own data, offline and with any setuptools.

pip would install into the machine's Python, and needs a setuptools that reads the licence in
pyproject.toml (77). All that a build takes stands in setup.py, so pyproject.toml is left unread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import setuptools


def main(argv: list[str] | None = None) -> int:
    """Build; SystemExit or an error of setuptools where that fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.build")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python-only", action="store_true", help="no compiled libraries")
    args = parser.parse_args(argv)
    if args.python_only:
        os.environ["LOWBIT_NATIVE"] = "0"
    shutil.rmtree(args.folder, ignore_errors=True)
    build(args.folder)
    built = sorted(path.name for path in args.folder.glob("lowbit/*.so"))
    print(f"built {', '.join(built) or 'no libraries'}")
    return int(not args.python_only and "_ops_cuda.so" not in built)


def build(folder: Path) -> None:
    """`setup.py build` with its results in the folder."""
    sys.path.insert(0, os.getcwd())  # setup.py imports modules beside it
    distribution = setuptools.distutils.core.run_setup("setup.py", stop_after="init")
    distribution.script_args = ["build", "--build-lib", str(folder), "--build-base", "build"]
    distribution.parse_command_line()
    distribution.run_commands()


if __name__ == "__main__":
    sys.exit(main())
