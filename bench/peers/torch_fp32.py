"""torch on the dequantized weight in float32: the baseline of every table."""

import torch

from lowbit.bench.cases import BACKWARD, LINEAR
from lowbit.bench.entries import Entry, Workload, product

NAME = "torch fp32"
OPS = (LINEAR, BACKWARD)


def unsupported(workload: Workload) -> str | None:
    """None: torch multiplies every matrix."""
    return None


def prepare(workload: Workload) -> Entry:
    """F.linear (or the product with the untransposed weight) in float32."""
    return plain_entry(NAME, workload, torch.float32)


def plain_entry(name: str, workload: Workload, dtype: torch.dtype) -> Entry:
    """The product with the dequantized weight in a dtype."""
    weight, x = workload.layer.plain.to(dtype), workload.x.to(dtype)
    return Entry(
        name,
        lambda w: product(workload.case.op, x, w),
        (weight,),
        weight,
        arithmetic="fp32" if dtype == torch.float32 else "bf16",
    )
