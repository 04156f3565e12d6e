"""Finds accesses outside a kernel's tensors, which Triton's interpreter makes without a word.

Within `guarded()` each launch works on copies of its tensors in one arena, every storage between
bands of 0xFF (NaN in all float types). A load or store is refused before it happens unless each of
its bytes belongs to an element of a tensor of the launch: the gaps of a view are out of bounds
too. What goes another way (atomics) is seen in the bands after the launch.
"""

import contextlib
from unittest import mock

import numpy as np
import torch
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

BAND = 4096  # bytes; a multiple of every alignment
FILL = 0xFF


class OutOfBounds(AssertionError):
    """A kernel touched memory that none of its tensors owns."""


class Arena:
    """Copies of the storages of some tensors, with bands before, between and after them."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors.values()}
        self.starts, end = {}, BAND
        for pointer, storage in storages.items():
            self.starts[pointer] = end
            end += storage.nbytes() + -storage.nbytes() % BAND + BAND
        self.memory = torch.full((end,), FILL, dtype=torch.uint8)
        self.base = self.memory.data_ptr()
        self.owned = np.zeros(end, dtype=bool)
        self.used = torch.zeros(end, dtype=torch.bool)
        self.storages = storages
        for pointer in storages:
            self._bytes_of(pointer).copy_(self._original(pointer))
            self._bytes_of(pointer, self.used).fill_(True)
        self.tensors = {name: self._moved(tensor) for name, tensor in tensors.items()}

    def _bytes_of(self, pointer: int, memory: torch.Tensor | None = None) -> torch.Tensor:
        start = self.starts[pointer]
        memory = self.memory if memory is None else memory
        return memory[start : start + self.storages[pointer].nbytes()]

    def _original(self, pointer: int) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8).set_(self.storages[pointer])

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in the arena; its elements become the kernel's to touch."""
        size, start = tensor.element_size(), self.starts[tensor.untyped_storage().data_ptr()]
        offset = start // size + tensor.storage_offset()
        elements = torch.zeros(len(self.owned) // size, dtype=torch.bool)
        elements.as_strided(tensor.shape, tensor.stride(), offset).fill_(True)
        self.owned[: len(elements) * size] |= np.repeat(elements.numpy(), size)
        moved = torch.empty(0, dtype=tensor.dtype)
        return moved.set_(self.memory.untyped_storage(), offset, tensor.shape, tensor.stride())

    def check_access(self, what: str, addresses: np.ndarray, size: int) -> None:
        first = np.asarray(addresses).astype(np.int64).reshape(-1) - self.base
        inside = (first >= 0) & (first + size <= len(self.owned))
        touched = np.where(inside, first, 0)[:, None] + np.arange(size)
        wrong = first[~(inside & self.owned[touched].all(1))]
        if len(wrong):
            where = self._describe(int(wrong[0]))
            raise OutOfBounds(f"{what} of {size} bytes, {len(wrong)} out of bounds, first {where}")

    def _describe(self, position: int) -> str:
        """Where a byte lies, seen from the nearest tensor."""
        found = []
        for name, tensor in self.tensors.items():
            begin = tensor.data_ptr() - self.base
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            last = sum((extent - 1) * stride for extent, stride in steps)
            end = begin + (last + 1) * tensor.element_size()
            if begin <= position < end:
                return f"between the rows of {name}"
            found.append((begin - position, f"{begin - position} bytes before {name}"))
            found.append((position - end, f"{position - end} bytes behind {name}"))
        return min(distance for distance in found if distance[0] >= 0)[1]

    def check_bands(self) -> None:
        changed = ((self.memory != FILL) & ~self.used).nonzero()
        if len(changed):
            where = self._describe(int(changed[0]))
            raise OutOfBounds(f"{len(changed)} bytes were written out of bounds, first {where}")

    def copy_back(self) -> None:
        for pointer in self.storages:
            self._original(pointer).copy_(self._bytes_of(pointer))


@contextlib.contextmanager
def guarded():
    """Within the block every interpreted launch is checked; violations raise."""
    arenas = []  # the one of the launch that runs

    def launch(self, *args, **kwargs):
        given = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        arena = Arena({name: t for name, t in given.items() if isinstance(t, torch.Tensor)})
        arenas.append(arena)
        try:
            stock_launch(self, **{**given, **arena.tensors})
        finally:
            arenas.pop()
        arena.check_bands()
        arena.copy_back()

    def check(what, pointers, mask):
        size = max(8, pointers.get_element_ty().primitive_bitwidth) // 8
        arenas[-1].check_access(what, pointers.data[mask.data], size)

    def load(self, pointers, mask, *rest, **options):
        check("load", pointers, mask)
        return stock_load(self, pointers, mask, *rest, **options)

    def store(self, pointers, value, mask, *rest, **options):
        check("store", pointers, mask)
        return stock_store(self, pointers, value, mask, *rest, **options)

    stock_launch = GridExecutor.__call__
    stock_load = InterpreterBuilder.create_masked_load
    stock_store = InterpreterBuilder.create_masked_store
    with (
        mock.patch.object(GridExecutor, "__call__", launch),
        mock.patch.object(InterpreterBuilder, "create_masked_load", load),
        mock.patch.object(InterpreterBuilder, "create_masked_store", store),
    ):
        yield
