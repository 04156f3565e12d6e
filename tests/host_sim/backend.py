"""Backend `cuda_model`: the CUDA texts on CPU tensors, for lowbit.use_backend("cuda_model")."""

import ctypes
import dataclasses
import functools
from collections.abc import Callable

import torch

from lowbit import registry
from tests.host_sim.builder import build_library


@functools.cache
def load() -> Callable[[int], None]:
    """Registers the backend once; returns the function that sets its scheduling seed."""
    registry.add_backend(registry.Backend("cuda_model", "cpu", -1, lambda device: None))
    for op in registry.OPS.values():
        for row in [row for row in op.rows if row.backend == "cuda"]:
            op.add_kernel(dataclasses.replace(row, backend="cuda_model", evidence="modelled"))
    library = build_library()
    torch.ops.load_library(library)
    set_seed = ctypes.CDLL(str(library)).lowbit_host_model_set_seed
    set_seed.argtypes, set_seed.restype = [ctypes.c_uint64], None
    return set_seed
