"""torch's own weight-only int4 product on the CPU: bfloat16 activations, scales and zeros."""

import torch

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _affine
from lowbit.bench.peers._affine import Affine

NAME = "torch int4pack"
OPS = (LINEAR,)
# at::_weight_int4pack_mm_for_cpu takes these groups only.
_GROUPS = (32, 64, 128, 256)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    if reason := _affine.unsupported(workload, (4,)):
        return reason
    group, (n, k) = workload.weight.group_size, workload.weight.shape
    if group not in _GROUPS or k % group or n % 16:
        return f"it takes groups of {', '.join(map(str, _GROUPS))} that divide K, and N % 16 == 0"
    return None


def prepare(workload: Workload) -> Entry:
    """Our codes in torch's layout: w = (c - 8) * s + z, with s and z rounded to bfloat16."""
    affine = Affine.of(workload.weight)
    group, codes = affine.group, affine.codes
    offsets = (8.0 - (8.0 if affine.zeros is None else affine.zeros)) * affine.scales
    pairs = torch.stack([affine.scales.t(), offsets.t()], -1).to(torch.bfloat16).contiguous()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
    x = workload.x.to(torch.bfloat16)
    return Entry(
        NAME,
        lambda p, s: torch.ops.aten._weight_int4pack_mm_for_cpu(x, p, group, s),
        (packed, pairs),
        _dequantized(codes, pairs, group),
    )


def _dequantized(codes: torch.Tensor, pairs: torch.Tensor, group: int) -> torch.Tensor:
    scales, offsets = (pairs[..., i].float().t().repeat_interleave(group, 1) for i in (0, 1))
    return (codes.float() - 8.0) * scales + offsets
