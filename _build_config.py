"""What the native build is asked for and what the machine offers.

Build variables (none is read at run time):
  LOWBIT_NATIVE      0: pure Python wheel; 1: build even on an untried platform
  LOWBIT_CUDA        auto: if nvcc is there and torch is a CUDA build; 0: never; 1: always
  LOWBIT_CUDA_ARCHS  default "80;90a"; an entry may end in +PTX
  LOWBIT_SIMD        0: scalar CPU kernels, as on a machine that is not x86
  LOWBIT_TORCH_DIR   folder of the torch package to build against
  MAX_JOBS           parallel compilations; default min(cores, free memory / 3 GB)
  CXX                C++20 compiler, default g++
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MIN_TORCH = (2, 11)
PURE_HINT = "LOWBIT_NATIVE=0 installs without compiled kernels"


def say(message: str) -> None:
    print(f"lowbit: {message}", file=sys.stderr, flush=True)


def choice(variable: str, allowed: tuple[str, ...]) -> str:
    """Value of a build variable; the first allowed value is the default."""
    value = os.environ.get(variable, "") or allowed[0]
    if value not in allowed:
        sys.exit(f"lowbit: {variable} must be one of {', '.join(allowed)}, got {value}")
    return value


@cache
def wants_native() -> bool:
    asked = choice("LOWBIT_NATIVE", ("auto", "0", "1"))
    if asked != "auto":
        return asked == "1"
    machine = f"{platform.system()} {platform.machine()}"
    supported = machine in ("Linux x86_64", "Linux aarch64")
    if not supported:
        say(f"no kernels for {machine}, installing pure Python (LOWBIT_NATIVE=1 builds them)")
    return supported


@dataclass(frozen=True)
class Torch:
    """An installed torch package, read from its files: importing it would take a second."""

    path: Path
    version: str
    cuda: str | None

    @classmethod
    def at(cls, path: Path) -> Torch | None:
        """The torch package in folder `path`, or None where there is none new enough."""
        if not (path / "include/torch/csrc/stable/library.h").is_file():
            return None
        text = (path / "version.py").read_text()
        version = re.search(r"^__version__\s*=\s*'([^']+)'", text, re.M)[1]
        cuda = re.search(r"^cuda\b[^=]*=\s*'([^']+)'", text, re.M)
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < MIN_TORCH:
            return None
        return cls(path, version, cuda[1] if cuda else None)


def site_folders() -> list[str]:
    """site-packages of the environment installed into; an isolated build hides them from sys.path
    but keeps the interpreter's prefix."""
    paths = sysconfig.get_paths()
    folders = [paths["platlib"], paths["purelib"], *site.getsitepackages()]
    config = Path(sys.prefix, "pyvenv.cfg")
    own_only = config.is_file() and not re.search(
        r"^include-system-site-packages\s*=\s*true", config.read_text(), re.M | re.I
    )
    if not own_only:
        folders += [*site.getsitepackages([sys.base_prefix]), site.getusersitepackages()]
    return folders


@cache
def find_torch() -> Torch | None:
    """LOWBIT_TORCH_DIR, else the torch this interpreter imports, else the target environment's."""
    if explicit := os.environ.get("LOWBIT_TORCH_DIR"):
        return Torch.at(Path(explicit)) or sys.exit(
            f"lowbit: LOWBIT_TORCH_DIR must be the folder of a torch >= 2.11, got {explicit}"
        )
    spec = importlib.util.find_spec("torch")
    importable = list(spec.submodule_search_locations or []) if spec else []
    for folder in [*importable, *(os.path.join(base, "torch") for base in site_folders())]:
        if torch := Torch.at(Path(folder)):
            return torch
    return None


def require_torch() -> Torch:
    return find_torch() or sys.exit(
        "lowbit: the build needs torch >= 2.11, found none; install torch first, or set "
        f"LOWBIT_TORCH_DIR ({PURE_HINT})"
    )


def find_nvcc() -> Path | None:
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    on_path = shutil.which("nvcc")
    candidates = [Path(home, "bin/nvcc") for home in homes[:2] if home]
    candidates += [Path(on_path)] if on_path else []
    candidates += [Path(homes[2], "bin/nvcc")]
    return next((nvcc for nvcc in candidates if nvcc.is_file()), None)


@cache
def choose_nvcc() -> Path | None:
    """The nvcc to build the CUDA library with, or None, with one line that says why."""
    asked = choice("LOWBIT_CUDA", ("auto", "0", "1"))
    nvcc, torch = find_nvcc(), require_torch()
    if asked == "1" and nvcc is None:
        sys.exit("lowbit: LOWBIT_CUDA=1 needs nvcc, found none; set CUDA_HOME")
    if asked == "1" or (asked == "auto" and nvcc and torch.cuda):
        return nvcc
    if asked == "0":
        reason = "LOWBIT_CUDA=0"
    elif nvcc is None:
        reason = "no nvcc found (set CUDA_HOME and install again to have them)"
    else:
        reason = f"torch {torch.version} is not a CUDA build (LOWBIT_CUDA=1 builds them anyway)"
    say(f"leaving out the CUDA kernels: {reason}")
    return None


def nvcc_version(nvcc: Path, torch: Torch) -> str:
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"release ([\d.]+)", text)[1]
    if torch.cuda and torch.cuda.split(".")[0] != version.split(".")[0]:
        say(
            f"nvcc {version} and torch's CUDA {torch.cuda} differ in the major version; the driver "
            "must support both"
        )
    return version


def cuda_archs() -> list[str]:
    archs = [a for a in os.environ.get("LOWBIT_CUDA_ARCHS", "80;90a").split(";") if a]
    for arch in archs:
        if not re.fullmatch(r"\d{2,3}[af]?(\+PTX)?", arch):
            sys.exit(f"lowbit: LOWBIT_CUDA_ARCHS must look like 80;90a;120+PTX, got {arch}")
    return archs


def free_gigabytes() -> float:
    """Memory that compilers may use: the machine's, or the container's limit when that is less."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.is_file():
        available = int(re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())[1]) * 1024
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        available = min(available, int(text))
    return available / 2**30


def job_count() -> int:
    if asked := os.environ.get("MAX_JOBS"):
        if not asked.isdecimal() or int(asked) == 0:
            sys.exit(f"lowbit: MAX_JOBS must be a positive number, got {asked}")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # One nvcc instance with the stable headers stays under 3 GB.
    return max(1, min(cores or 1, int(free_gigabytes() / 3)))


def wants_simd() -> bool:
    return choice("LOWBIT_SIMD", ("1", "0")) == "1"


def cxx() -> str:
    """The C++ compiler's command; may hold a launcher in front, as in "ccache g++"."""
    command = os.environ.get("CXX", "g++")
    if not shutil.which(shlex.split(command)[0]):
        sys.exit(f"lowbit: the build needs a C++20 compiler, found no {command}; {PURE_HINT}")
    return command
