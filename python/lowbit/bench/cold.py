"""Copies of an entry's operands that take turns, so that a call reads its weight from memory.

There are 256 MiB of them for each entry, 256 copies at most, whatever the caches: those of all
entries of a case must fit in memory together. A last-level cache beyond that size, as a server has
for all its guests, may keep copies until their next turn. What evicts them there are the other
guests and, between two samples, the windows of the probe and the copies of the other entries.

Ours and the peers' copies lie alike: one behind the other on huge pages.

On a GPU they are twice as large as its second-level cache at least, and the calls on them are one
graph (graphs.py). Given results are among the operands of what writes them, so they take turns too:
what is written to the same memory again and again need not leave the cache.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import torch

from lowbit.bench import gpu, graphs
from lowbit.bench.entries import Entry
from lowbit.bench.graphs import Calls
from lowbit.formats.memory import byte_range, empty_on_huge_pages

_BYTES = 256 << 20
_MOST = 256
_LINE = 64

Operands = tuple


def rotation(entry: Entry, cold: bool, device: str = "cpu") -> Calls:
    """Calls of the entry; when cold, each product takes the next copy of the operands."""
    if device == "cuda":
        return graphs.captured(entry.call, copies(entry, device) if cold else [entry.operands])
    if not cold:
        return Calls(functools.partial(entry.call, *entry.operands), 1)
    if entry.graph is not None:
        return Calls(entry.graph(_count(entry)), _count(entry))
    turn = itertools.cycle(copies(entry))
    return Calls(lambda: entry.call(*next(turn)), 1)


def _count(entry: Entry, nbytes: int = 0) -> int:
    least = max(_BYTES, nbytes)
    return min(max(1, -(-least // max(1, entry.operand_bytes))), _MOST)


def copies(entry: Entry, device: str = "cpu") -> list[Operands]:
    """The operands so many times that they are `_BYTES`, but `_MOST` times at most."""
    count = _count(entry, 2 * gpu.l2_bytes() if device == "cuda" else 0)
    if entry.another is not None:
        return [entry.operands, *(entry.another() for _ in range(count - 1))]
    if device == "cuda":
        return [tuple(t if t is None else t.clone() for t in entry.operands) for _ in range(count)]
    size = sum(_extent(t) for t in entry.operands if t is not None)
    arena = empty_on_huge_pages(torch.empty(0, dtype=torch.uint8), (count * size,))
    return [tuple(_place(entry.operands, arena[i * size :])) for i in range(count)]


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from the first to the last element, in whole cache lines."""
    start, stop = byte_range(tensor)
    return -(-(stop - start) // _LINE) * _LINE


def _place(operands: Operands, arena: torch.Tensor) -> Iterator[torch.Tensor | None]:
    """Copies with the strides of the originals, one behind the other."""
    for tensor in operands:
        if tensor is None:
            yield None
            continue
        memory, arena = arena[: _extent(tensor)], arena[_extent(tensor) :]
        copy = memory.view(tensor.dtype).as_strided(tensor.shape, tensor.stride())
        yield copy.copy_(tensor)
