"""Backend `triton_model`: the Triton kernels in Triton's interpreter, on CPU tensors."""

import dataclasses
import functools
import importlib

from lowbit import registry

NAME = "triton_model"


@functools.cache
def load() -> None:
    """Registers the backend once, for lowbit.use_backend("triton_model")."""
    registry.add_backend(registry.Backend(NAME, "cpu", -1, lambda device: None))
    for op in registry.OPS.values():
        for row in [row for row in op.rows if row.backend == "triton"]:
            op.add_kernel(dataclasses.replace(row, backend=NAME, evidence="modelled"))
            run = importlib.import_module(f"lowbit.ops.{op.name}").run_triton
            registry.LIBRARY.impl(f"{op.name}__{NAME}", run, "CPU")
