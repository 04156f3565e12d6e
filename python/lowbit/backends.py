"""The backends: where kernels run, what they need, and which one a thread is held to."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import threading
from collections.abc import Callable, Iterator

import torch

from lowbit import native
from lowbit.errors import refuse

BACKENDS: dict[str, Backend] = {}

_local = threading.local()


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where kernels of one kind run. `missing(device)` tells why they cannot, None if they can."""

    name: str
    device: str | None  # the torch device type; None: every device
    rank: int  # the chooser prefers the higher rank; below 0 only use_backend takes it
    missing: Callable[[torch.device], str | None]


def add_backend(backend: Backend) -> None:
    """Make a backend known to the chooser."""
    BACKENDS[backend.name] = backend
    native.forget_choices(everywhere=True)


def forced_backend() -> str | None:
    """The backend that use_backend forces in this thread."""
    return getattr(_local, "backend", None)


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block every lowbit op of this thread runs on the named backend, or raises.

    Read when an op runs, so compiled graphs honour it; in a function that torch.compile traces it
    breaks the graph. None: the chooser decides again.
    Raises ValueError for an unknown name.
    """
    if name is not None and name not in BACKENDS:
        refuse("use_backend", "name", f"be one of {', '.join(BACKENDS)}", repr(name))
    if torch.compiler.is_dynamo_compiling():
        torch._dynamo.graph_break(msg="lowbit.use_backend takes effect around a compiled call only")
    previous = forced_backend()
    _force(name)
    try:
        yield
    finally:
        _force(previous)


def _force(name: str | None) -> None:
    _local.backend = name
    native.forget_choices()  # of this thread, as they were made for another backend in force


_NO_GPU = "torch sees no CUDA device; run on a machine with an NVIDIA GPU and a CUDA build of torch"


def _library_missing(name: str) -> Callable[[torch.device], str | None]:
    def missing(device: torch.device) -> str | None:
        library = native.load(name)
        if library.loaded:
            return None
        return f"{library.reason}; {library.remedy}" if library.remedy else library.reason

    return missing


def _cuda_missing(device: torch.device) -> str | None:
    absent = _library_missing("_ops_cuda")(device)
    if absent or device.type != "cuda":
        return absent
    if not torch.cuda.is_available():
        return _NO_GPU
    major, minor = torch.cuda.get_device_capability(device)
    if native.cuda_arch_supported(major, minor):
        return None
    remedy = f"rebuild with LOWBIT_CUDA_ARCHS including {major}{minor}"
    return f"the CUDA kernels were not built for sm_{major}{minor}; {remedy}"


def _triton_missing(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install triton"
    return None if torch.cuda.is_available() else _NO_GPU


add_backend(Backend("reference", None, 0, lambda device: None))
add_backend(Backend("cpu", "cpu", 20, _library_missing("_ops_cpu")))
add_backend(Backend("cuda", "cuda", 20, _cuda_missing))
# Below cuda: its first call of a kind compiles, and each launch goes through Python.
add_backend(Backend("triton", "cuda", 10, _triton_missing))
