"""Finds and loads the compiled libraries, and keeps the reason when one is absent.

No library is needed to import lowbit: without one the other backends are there, and `lowbit info`
shows the reason and the remedy. Only a LOWBIT_ISA that cannot be had gives a warning.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch

from lowbit import environment
from lowbit.errors import refuse

FOLDER = Path(__file__).parent
LIBRARIES = ("_ops_cpu", "_ops_cuda")
# Levels of the instruction set: each includes those before it.
ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")


@dataclass(frozen=True)
class Library:
    """A compiled library and what became of loading it.

    `reason` and `remedy` are None when all is well. The CPU library can be loaded and still have a
    reason: it refused the instruction set of LOWBIT_ISA.
    """

    name: str
    path: Path
    loaded: bool
    reason: str | None = None
    remedy: str | None = None


_libraries: dict[str, Library] = {}
_forgetters: list[Callable[[bool], None]] = []
_lock = threading.Lock()
_forced = threading.local()


def load(name: str) -> Library:
    """Loads "_ops_cpu" or "_ops_cuda" once and returns its state; every call the same object.

    The schemas of the library's operators must be defined first.

    Raises:
        ValueError: for another name. A library that cannot be loaded is no error.
    """
    if name not in LIBRARIES:
        refuse("load", "name", f"be one of {', '.join(LIBRARIES)}", repr(name))
    with _lock:
        if name not in _libraries:
            _libraries[name] = _load_cuda() if name == "_ops_cuda" else _load_cpu()
        return _libraries[name]


def libraries() -> dict[str, Library]:
    """State of every library by name; loads those not asked for yet."""
    return {name: load(name) for name in LIBRARIES}


def _load_cpu() -> Library:
    library = _load_file("_ops_cpu", "a C++20 compiler")
    if not library.loaded:
        return library
    _let_forget()
    isa = environment.isa()
    return _with_default_isa(library, isa) if isa else library


def _let_forget() -> None:
    address = torch.ops.lowbit._cpu_forget_choices_address()
    _forgetters.append(ctypes.PYFUNCTYPE(None, ctypes.c_bool)(address))


def _load_cuda() -> Library:
    # Without CUDA in torch the library's symbols cannot be resolved; ROCm builds are no exception.
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA"
        return Library("_ops_cuda", _path("_ops_cuda"), False, reason, "install a CUDA build of it")
    return _load_file("_ops_cuda", "nvcc (set CUDA_HOME)")


def _path(name: str) -> Path:
    return FOLDER / f"{name}.so"


def _load_file(name: str, builder: str) -> Library:
    path = _path(name)
    if not path.is_file():
        reason = f"{path.name} is not part of this installation"
        return Library(name, path, False, reason, f"install lowbit from source with {builder}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        remedy = f"lowbit needs torch >= 2.11, this is {torch.__version__}; install lowbit again"
        return Library(name, path, False, _with_cause(error), remedy)
    return Library(name, path, True)


def _with_cause(error: BaseException) -> str:
    """torch names only the file; the loader's own words are in the cause."""
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)


def _with_default_isa(library: Library, isa: str) -> Library:
    """Applies LOWBIT_ISA, process-wide: kernels may be called from any thread."""
    try:
        torch.ops.lowbit._cpu_default_isa(isa)
    except (AttributeError, RuntimeError):
        allowed = f"one of {', '.join(ISAS)} that this CPU and build have"
        reason = f"LOWBIT_ISA must be {allowed}, got {isa}"
        warnings.warn(f"{reason}; the best one is used", stacklevel=2)
        return replace(library, reason=reason, remedy="unset it for the best one")
    return library


def forget_choices(everywhere: bool = False) -> None:
    """Makes the libraries ask the chooser again (csrc/choices.h), in this thread or in all."""
    for forget in _forgetters:
        forget(everywhere)


def isa() -> str:
    """Level of the instruction set that CPU kernels use in this thread, one of ISAS.

    Raises:
        RuntimeError: when the CPU library is absent.
    """
    return _request_isa("")


@contextmanager
def use_isa(name: str) -> Iterator[str]:
    """Forces the instruction set of CPU kernels called from this thread; yields the one in force.

    Raises:
        ValueError: for a name that is not among ISAS.
        RuntimeError: when the CPU lacks it or the CPU library is absent.
    """
    if name not in ISAS:
        refuse("use_isa", "name", f"be one of {', '.join(ISAS)}", repr(name))
    outer = getattr(_forced, "isa", "auto")
    in_force = _request_isa(name)
    _forced.isa = name
    try:
        yield in_force
    finally:
        _forced.isa = outer
        _request_isa(outer)


def _request_isa(request: str) -> str:
    library = load("_ops_cpu")
    if not library.loaded:
        need = "be loaded to choose an instruction set"
        refuse("isa", "_ops_cpu", need, library.reason, library.remedy, RuntimeError)
    return torch.ops.lowbit._cpu_isa(request)


@functools.cache
def _info_module() -> ModuleType | None:
    try:
        from lowbit import _C
    except ImportError:
        return None
    return _C


def build_info() -> dict | None:
    """Facts of this build: compiler, torch, simd, nvcc, cuda_archs, and commit where it is known.

    None without lowbit._C.
    """
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
