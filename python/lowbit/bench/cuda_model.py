"""Backend `cuda_model`: the CUDA kernels on CPU tensors, run by the host model of the GPU.

The library is what `python -m tests.host_sim` builds from a checkout; none is installed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from pathlib import Path

import torch

from lowbit import registry

NAME = "cuda_model"


def covers(op: registry.Op) -> bool:
    """Whether the op has a kernel of this backend."""
    return any(row.backend == NAME for row in op.rows)


class Model:
    """The model's controls in a loaded library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.lowbit_host_model_set_seed.argtypes = [ctypes.c_uint64]

    def set_seed(self, seed: int) -> None:
        """Draw the schedules of the launches from here on from this seed."""
        self._library.lowbit_host_model_set_seed(seed)

    def begin_capture(self) -> None:
        """Record the launches from here on instead of running them, as a CUDA graph does."""
        self._library.lowbit_host_model_begin_capture()

    def end_capture(self) -> None:
        """Run launches again."""
        self._library.lowbit_host_model_end_capture()

    def replay(self) -> None:
        """Run what was recorded, with the arguments of then."""
        self._library.lowbit_host_model_replay()


@functools.cache
def load(path: Path) -> Model:
    """Register the kernels of the library under the backend, which use_backend alone takes.

    Raises OSError where the file is not such a library.
    """
    torch.ops.load_library(path)
    model = Model(ctypes.CDLL(str(path)))
    registry.add_backend(registry.Backend(NAME, "cpu", -1, lambda device: None))
    for op in registry.OPS.values():
        for row in [row for row in op.rows if row.backend == "cuda"]:
            op.add_kernel(dataclasses.replace(row, backend=NAME, evidence="modelled"))
    return model
