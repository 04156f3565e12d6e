"""Backend `triton_model`: the Triton kernels in Triton's interpreter, on CPU tensors."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from unittest import mock

from lowbit import registry
from lowbit.triton_kernels import tiles
from tests.triton_cpu.canaries import guarded
from tests.triton_cpu.interpreter import corrections

NAME = "triton_model"


@functools.cache
def load() -> None:
    """Registers the backend once, for lowbit.use_backend("triton_model")."""
    registry.add_backend(registry.Backend(NAME, "cpu", -1, lambda device: None))
    for op in registry.OPS.values():
        for row in [row for row in op.rows if row.backend == "triton"]:
            op.add_kernel(dataclasses.replace(row, backend=NAME, evidence="modelled"))


@contextlib.contextmanager
def interpreting() -> Iterator[None]:
    """Within the block the backend's kernels run: corrected, guarded, and for a GPU of 9.0.

    It has one multiprocessor, so that few programs are enough for it.
    """
    load()
    kind = mock.patch.object(tiles, "device_kind", lambda tensor: tiles.Device(90, 1))
    with corrections(), guarded(), kind:
        yield
