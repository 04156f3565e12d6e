"""ggml's q4_0, q5_0 and q8_0: blocks of 32 with a float16 scale."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _ggml

NAME = "ggml legacy"
OPS = (LINEAR,)
_TYPES = {4: 2, 5: 6, 8: 8}  # GGML_TYPE_Q4_0, Q5_0, Q8_0


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    return _ggml.unsupported(workload, _TYPES)


def prepare(workload: Workload) -> Entry:
    """The float weight in the type of as many bits."""
    return _ggml.prepare(workload, _TYPES)
