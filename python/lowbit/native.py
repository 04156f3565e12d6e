"""Finds and loads the compiled libraries, and keeps the reason when one is absent.

Nothing here raises or prints on import: a machine without a library still has the other backends,
and `lowbit info` shows the reason and the remedy.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from lowbit import environment

FOLDER = Path(__file__).parent
FILES = {"cpu": "_ops_cpu.so", "cuda": "_ops_cuda.so"}
ISAS = ("scalar", "avx2", "avx512")


@dataclass(frozen=True)
class Library:
    """A compiled library and what became of loading it.

    `reason` and `remedy` are None when all is well. A library can be loaded and still have a reason:
    the CPU library when it refused the instruction set of LOWBIT_ISA.
    """

    name: str
    path: Path
    loaded: bool
    reason: str | None = None
    remedy: str | None = None


_libraries: dict[str, Library] = {}
_lock = threading.RLock()
_forced = threading.local()


def load(name: str) -> Library:
    """Loads library "cpu" or "cuda" once and returns its state; later calls return the same object.

    The schemas of the library's operators must be defined first.

    Raises:
        ValueError: for another name. A library that cannot be loaded is no error.
    """
    if name not in FILES:
        raise ValueError(f"load: name must be one of {', '.join(FILES)}, got {name}")
    with _lock:
        if name not in _libraries:
            _libraries[name] = _load(name)
        return _libraries[name]


def libraries() -> dict[str, Library]:
    """State of every library by name; loads those not asked for yet."""
    return {name: load(name) for name in FILES}


def _load(name: str) -> Library:
    path = FOLDER / FILES[name]
    absent = functools.partial(Library, name, path, False)
    # Without CUDA in torch the library's symbols cannot be resolved (ROCm builds included).
    if name == "cuda" and torch.version.cuda is None:
        return absent(
            f"torch {torch.__version__} is built without CUDA", "install a CUDA build of torch"
        )
    if not path.is_file():
        return absent(f"{path.name} was not built", _build_remedy(name))
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return absent(_with_cause(error), "reinstall lowbit with a torch that is 2.11 or newer")
    return (
        _with_default_isa(Library(name, path, True)) if name == "cpu" else Library(name, path, True)
    )


def _build_remedy(name: str) -> str:
    need = "g++" if name == "cpu" else "nvcc (set CUDA_HOME)"
    return (
        f"reinstall lowbit from source where {need} is found; the build prints what it leaves out"
    )


def _with_cause(error: BaseException) -> str:
    """torch names only the file; the loader's own words are in the cause."""
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)


def _with_default_isa(library: Library) -> Library:
    """Applies LOWBIT_ISA, process-wide: kernels may be called from any thread."""
    isa = environment.isa()
    if isa is None:
        return library
    try:
        torch.ops.lowbit._cpu_default_isa(isa)
    except (AttributeError, RuntimeError) as error:
        reason = f"LOWBIT_ISA={isa} was refused: {error}"
        warnings.warn(reason, stacklevel=2)
        remedy = f"set LOWBIT_ISA to one of {', '.join(ISAS)} that this CPU has, or unset it"
        return Library(library.name, library.path, True, reason, remedy)
    return library


def isa() -> str:
    """Instruction set that CPU kernels use in this thread: "scalar", "avx2" or "avx512".

    Raises:
        RuntimeError: when the CPU library is absent.
    """
    return _request_isa("")


@contextmanager
def use_isa(name: str) -> Iterator[str]:
    """Forces the instruction set of CPU kernels called from this thread; yields the one in force.

    Raises:
        ValueError: for a name other than "scalar", "avx2" and "avx512".
        RuntimeError: when the CPU lacks it or the CPU library is absent.
    """
    if name not in ISAS:
        raise ValueError(f"use_isa: name must be one of {', '.join(ISAS)}, got {name}")
    outer = getattr(_forced, "isa", "auto")
    in_force = _request_isa(name)
    _forced.isa = name
    try:
        yield in_force
    finally:
        _forced.isa = outer
        _request_isa(outer)


def _request_isa(request: str) -> str:
    library = load("cpu")
    if not library.loaded:
        raise RuntimeError(
            f"isa: the CPU library must be loaded, got: {library.reason}; {library.remedy}"
        )
    return torch.ops.lowbit._cpu_isa(request)


@functools.cache
def _info_module() -> ModuleType | None:
    try:
        from lowbit import _C
    except ImportError:
        return None
    return _C


def build_info() -> dict | None:
    """Facts of this build: compiler, torch, simd, nvcc, cuda_archs. None without lowbit._C."""
    module = _info_module()
    return module.build_info() if module else None


def cpu_features() -> dict[str, bool] | None:
    """Instruction set extensions of this CPU by name, empty off x86. None without lowbit._C."""
    module = _info_module()
    return module.cpu_features() if module else None


def cuda_arch_supported(major: int, minor: int) -> bool:
    """Whether the CUDA library has code for compute capability `major`.`minor`.

    Without lowbit._C that is unknown and counts as yes: CUDA itself then names a missing kernel.
    """
    info = build_info()
    return info is None or any(_arch_covers(arch, major, minor) for arch in info["cuda_archs"])


def _arch_covers(arch: str, major: int, minor: int) -> bool:
    """CUDA's compatibility rules: "90a" is that device only, "80" also later minors of its major,
    "100f" later minors of the family, and "80+PTX" every later device."""
    number, _, ptx = arch.partition("+")
    digits = number.rstrip("af")
    built, device = (int(digits[:-1]), int(digits[-1])), (major, minor)
    if number.endswith("a"):
        return device == built
    return device >= built and (bool(ptx) or major == built[0])
