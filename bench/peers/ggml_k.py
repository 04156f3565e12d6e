"""ggml's k-quants: super-blocks of 256 with scales of 4 to 8 bits, as most GGUF files have them."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _ggml

NAME = "ggml k-quant"
OPS = (LINEAR,)
_TYPES = {2: 10, 3: 11, 4: 12, 5: 13, 6: 14}  # GGML_TYPE_Q2_K to Q6_K


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    return _ggml.unsupported(workload, _TYPES)


def prepare(workload: Workload) -> Entry:
    """The float weight in the type of as many bits."""
    return _ggml.prepare(workload, _TYPES)
