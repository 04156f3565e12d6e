"""torch on the dequantized weight in bfloat16."""

import torch

from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers.torch_fp32 import OPS, plain_entry, unsupported

__all__ = ["NAME", "OPS", "prepare", "unsupported"]

NAME = "torch bf16"


def prepare(workload: Workload) -> Entry:
    """F.linear (or the product with the untransposed weight) in bfloat16."""
    return plain_entry(NAME, workload, torch.bfloat16)
