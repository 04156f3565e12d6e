"""Memory on huge pages: on ordinary ones a memory-bound kernel loses up to half of its speed."""

import mmap

import torch

_HUGE_PAGE = 2 << 20


def empty(nbytes: int) -> torch.Tensor:
    """uint8[nbytes] of the CPU at the start of a huge page, not touched yet.

    Ordinary pages where the system has no others.
    """
    memory = mmap.mmap(-1, nbytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the memory alive
    start = -whole.data_ptr() % _HUGE_PAGE
    return whole[start : start + nbytes]
