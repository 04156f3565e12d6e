"""Moves the memory of this process to huge pages, that of peers which allocate it themselves too.

On ordinary pages a memory-bound kernel loses up to half of its speed, so that a comparison would
show who asked for huge ones.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

from lowbit.formats.memory import HUGE_PAGE

_MAPS = Path("/proc/self/maps")
# start-stop, private and writable, no file behind it: [heap] or no name
_AREA = re.compile(r"(\w+)-(\w+) rw-p 0+ 00:00 0 *(?:\[heap\])?")
_COLLAPSE = 25  # MADV_COLLAPSE: at once, where Linux has it (6.1)
_LEAST = 4 * HUGE_PAGE


def collapse() -> None:
    """All larger areas; nothing happens where the system cannot."""
    for start, size in _areas():
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _COLLAPSE)


def _areas() -> Iterator[tuple[int, int]]:
    """(address, bytes) of whole huge pages."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        if found := _AREA.fullmatch(line):
            start = -(-int(found[1], 16) // HUGE_PAGE) * HUGE_PAGE
            stop = int(found[2], 16) // HUGE_PAGE * HUGE_PAGE
            if stop - start >= _LEAST:
                yield start, stop - start
