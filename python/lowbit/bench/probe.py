"""The limits of the machine, measured beside the figures that are compared with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

_PASSES = 3
_MATRIX = 2048
_COLUMNS = 4096
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


class Probe:
    """Read bandwidth of memory and peak of float32 products, at torch's current thread count."""

    def __init__(self, device: str, quick: bool = False):
        self.device = device
        elements = _buffer_bytes(device, quick) // 4
        self._buffer = torch.ones(elements, device=device)

    def bandwidth(self) -> float:
        """Bytes a second of the fastest read-only pass over a buffer larger than the caches."""
        matrix = self._buffer.view(-1, _COLUMNS)
        vector = matrix.new_ones(_COLUMNS)
        reads = (self._buffer.sum, lambda: torch.mv(matrix, vector))
        fastest = min(self._fastest(read) for read in reads)
        return self._buffer.nbytes / fastest

    def fp32_peak(self) -> float:
        """Operations a second of a large float32 matrix product."""
        a = torch.randn(_MATRIX, _MATRIX, device=self.device)
        return 2.0 * _MATRIX**3 / self._fastest(lambda: torch.mm(a, a))

    def _fastest(self, work: Callable) -> float:
        work()
        return min(timed(work, 1, self.device) for _ in range(_PASSES))


def timed(work: Callable, repeats: int, device: str) -> float:
    """Seconds a call, of `repeats` calls in a row."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def synchronize(device: str) -> None:
    """Wait for the device's work; nothing to do on a CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def _buffer_bytes(device: str, quick: bool) -> int:
    """Twice the last-level cache within 256 MiB and 1 GiB: more would not fit small machines."""
    if quick or device == "cuda":
        return 256 << 20 if device == "cpu" else 2 << 30
    return min(max(2 * cache_bytes(), 256 << 20), 1 << 30)


def cache_bytes() -> int:
    """Size of the last-level cache, 0 where the system does not tell."""
    try:
        text = _CACHE.read_text().strip()
    except OSError:
        return 0
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1:] in "KM" else 0
