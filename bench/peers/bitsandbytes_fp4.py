"""bitsandbytes' FP4 on the CPU."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _bitsandbytes
from lowbit.bench.peers._bitsandbytes import unsupported

__all__ = ["NAME", "OPS", "prepare", "unsupported"]

NAME = "bitsandbytes FP4"
OPS = (LINEAR,)


def prepare(workload: Workload) -> Entry:
    """The float weight in FP4."""
    return _bitsandbytes.prepare(NAME, workload, "fp4")
