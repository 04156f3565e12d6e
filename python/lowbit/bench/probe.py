"""The limits of the machine, measured beside the figures that are compared with them.

With the CPU library: one read-only pass over huge pages a call, and loops of one instruction on
registers, with the best instruction set of this CPU. Without it, and on a GPU: what torch reaches,
the best of its copies and reductions, and its products of large square matrices.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lowbit import native
from lowbit.bench import gpu
from lowbit.formats.memory import empty_on_huge_pages

# arithmetic -> the instructions that do it (csrc/cpu/probe.cpp); its peak is that of the fastest.
# A GPU's are those of torch's products, named after the arithmetic.
INSTRUCTIONS = {
    "fp32": ("fma",),
    "bf16": ("tile_bf16", "dot_bf16", "fma"),
    "int8": ("tile_int8", "dot_int8"),
}
_PASS_BYTES = 256 << 20
_PASSES = 3
_MATRIX = 2048
_GPU_MATRIX = 8192
_COLUMNS = 4096
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


class Probe:
    """Read bandwidth and peaks of a device, at torch's current thread count."""

    def __init__(self, device: str, quick: bool = False):
        self.device = device
        self.native = device == "cpu" and native.load("_ops_cpu").loaded
        nbytes = _buffer_bytes(device, quick)
        if self.native:
            buffer = empty_on_huge_pages(torch.empty(0), (nbytes // 4,)).fill_(1.0)
            self._windows = itertools.cycle(buffer.split(min(nbytes, _PASS_BYTES) // 4))
        else:
            self._buffer = torch.rand(nbytes // 4, device=device)

    def bandwidth(self) -> float:
        """Bytes a second of a pass over memory that is in no cache; a native one only reads."""
        if self.native:
            with best_isa():
                return torch.ops.lowbit._probe_read(next(self._windows))
        matrix = self._buffer.view(-1, _COLUMNS)
        vector = matrix.new_ones(_COLUMNS)
        source, target = self._buffer.chunk(2)
        passes = (self._buffer.sum, lambda: torch.mv(matrix, vector), lambda: target.copy_(source))
        return self._buffer.nbytes / min(self._fastest(one) for one in passes)

    def peaks(self) -> dict[str, float]:
        """Operations a second of each instruction of INSTRUCTIONS; 0 where the CPU lacks it."""
        if self.device == "cuda":
            return self._gpu_peaks()
        if not self.native:
            a = torch.randn(_MATRIX, _MATRIX, device=self.device)
            return {"fma": 2.0 * _MATRIX**3 / self._fastest(lambda: torch.mm(a, a))}
        names = sorted({name for names in INSTRUCTIONS.values() for name in names})
        with best_isa():
            return {name: torch.ops.lowbit._probe_peak(name) for name in names}

    def _gpu_peaks(self) -> dict[str, float]:
        """Of matrices of random numbers: with zeros a GPU draws less power and runs faster."""
        a = torch.randn(_GPU_MATRIX, _GPU_MATRIX, device=self.device)
        half = a.to(torch.bfloat16)
        products = {"fp32": lambda: torch.mm(a, a), "bf16": lambda: torch.mm(half, half)}
        return {n: 2.0 * _GPU_MATRIX**3 / self._fastest(work) for n, work in products.items()}

    def _fastest(self, work: Callable) -> float:
        work()
        return min(timed(work, 1, self.device) for _ in range(_PASSES))


def peak_of(arithmetic: str, peaks: dict[str, float]) -> float:
    """Operations a second of an arithmetic, given those of the instructions; 0 if not known."""
    names = (arithmetic, *INSTRUCTIONS.get(arithmetic, ()))
    return max(peaks.get(name, 0.0) for name in names)


@contextlib.contextmanager
def best_isa() -> Iterator[None]:
    """The limits are those of the CPU, whatever instruction set our kernels are held to."""
    with contextlib.ExitStack() as stack:
        for name in reversed(native.ISAS):
            with contextlib.suppress(RuntimeError):  # this CPU or build lacks it
                stack.enter_context(native.use_isa(name))
                break
        yield


def timed(work: Callable, repeats: int, device: str) -> float:
    """Seconds a call, of `repeats` calls in a row."""
    if device == "cuda":
        return gpu.elapsed(work, repeats) / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def _buffer_bytes(device: str, quick: bool) -> int:
    """Twice the last-level cache within 256 MiB and 1 GiB: more would not fit small machines."""
    if quick or device == "cuda":
        return 256 << 20 if device == "cpu" else 2 << 30
    whole = min(max(2 * cache_bytes(), _PASS_BYTES), 1 << 30)
    return whole // _PASS_BYTES * _PASS_BYTES


def cache_bytes() -> int:
    """Size of the last-level cache, 0 where the system does not tell."""
    try:
        text = _CACHE.read_text().strip()
    except OSError:
        return 0
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1:] in "KM" else 0
