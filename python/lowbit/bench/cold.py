"""Copies of an entry's operands that take turns, so that a call reads its weight from memory.

There are 256 MiB of them for each entry, 256 copies at most, whatever the caches: those of all
entries of a case must fit in memory together. A last-level cache beyond that size, as a server has
for all its guests, may keep copies until their next turn. What evicts them there are the other
guests and, between two samples, the windows of the probe and the copies of the other entries.

Ours and the peers' copies lie alike: one behind the other on huge pages.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import torch

from lowbit.bench.entries import Entry
from lowbit.formats.memory import byte_range, empty_on_huge_pages

_BYTES = 256 << 20
_MOST = 256
_LINE = 64

Operands = tuple


def rotation(entry: Entry, cold: bool) -> tuple[Callable[[], object], int]:
    """A call of the entry, and how many products it does.

    When cold, each product takes the next copy of the operands.
    """
    if not cold:
        return functools.partial(entry.call, *entry.operands), 1
    if entry.graph is not None:
        return entry.graph(_count(entry)), _count(entry)
    turn = itertools.cycle(copies(entry))
    return lambda: entry.call(*next(turn)), 1


def _count(entry: Entry) -> int:
    return min(max(1, -(-_BYTES // max(1, entry.operand_bytes))), _MOST)


def copies(entry: Entry) -> list[Operands]:
    """The operands so many times that they are `_BYTES`, but `_MOST` times at most."""
    count = _count(entry)
    if entry.another is not None:
        return [entry.operands, *(entry.another() for _ in range(count - 1))]
    if any(t is not None and t.device.type != "cpu" for t in entry.operands):
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
