"""What timing needs of torch.cuda, all of it in this file: tests put a stand-in in its place."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Sequence

import torch

_DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def described() -> str:
    """Name and driver of the current GPU."""
    return f"{torch.cuda.get_device_name()}, driver {driver()}"


@functools.cache
def driver() -> str:
    """The driver's version; "unknown" where nvidia-smi does not tell."""
    try:
        done = subprocess.run(_DRIVER, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.partition("\n")[0].strip() or "unknown"


def l2_bytes() -> int:
    """Size of the second-level cache, through which all of the GPU's memory is read."""
    return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size


def elapsed(work: Callable[[], object], repeats: int) -> float:
    """Seconds of `repeats` calls in a row, from the first one's start on the GPU to the last's end.

    Clocks of the GPU tell, since the host is done with a call before the GPU has begun it.
    """
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def capture(works: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """A call that runs all the works, one after the other, as one graph: one launch for the host.

    Raises RuntimeError where one of them waits for the GPU, which a graph cannot.
    """
    torch.cuda.synchronize()
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    # A capture that fails leaves its stream the current one, so this puts the former back.
    with torch.cuda.stream(stream):
        works[0]()  # what libraries set up at a first call on a stream is no part of a graph
        with torch.cuda.graph(graph, stream=stream):
            for work in works:
                work()
    return graph.replay
