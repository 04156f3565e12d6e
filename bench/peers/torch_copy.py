"""torch's copy of a float32 matrix of the same size: what moving the memory alone takes."""

import torch

from lowbit.bench.cases import DEQUANTIZE
from lowbit.bench.entries import Entry, Workload, bytes_of

NAME = "torch copy fp32"
OPS = (DEQUANTIZE,)


def unsupported(workload: Workload) -> str | None:
    """None: torch copies every matrix."""
    return None


def prepare(workload: Workload) -> Entry:
    """The dequantized weight copied into a given matrix of the result's dtype."""
    weight = workload.layer.plain
    out = torch.empty_like(weight, dtype=workload.case.dtype)
    return Entry(
        NAME,
        lambda source, target: target.copy_(source),
        (weight, out),
        weight,
        nbytes=bytes_of((weight,)),
    )
