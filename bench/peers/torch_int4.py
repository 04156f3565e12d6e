"""torch's own weight-only int4 product on the CPU: bfloat16 activations, scales and zeros."""

import torch

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.formats.packing import unpack_codes

NAME = "torch int4pack"
OPS = (LINEAR,)
# at::_weight_int4pack_mm_for_cpu takes these groups only.
_GROUPS = (32, 64, 128, 256)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    weight = workload.weight
    if workload.x.device.type != "cpu":
        return "it runs on cpu"
    if weight.bits != 4 or weight.table is not None:
        return "it takes 4-bit integer codes"
    if weight.zero_kind not in ("code", "midpoint"):
        return "it takes integer codes with zero points"
    n, k = weight.shape
    if weight.group_size not in _GROUPS or k % weight.group_size or n % 16:
        return f"it takes groups of {', '.join(map(str, _GROUPS))} that divide K, and N % 16 == 0"
    return None


def prepare(workload: Workload) -> Entry:
    """Our codes in torch's layout: w = (c - 8) * s + z, with s and z rounded to bfloat16."""
    weight, group = workload.weight, workload.weight.group_size
    codes = unpack_codes(weight.qweight, 4, weight.format.k)
    scales = weight.scales.float() * (1.0 if weight.s0 is None else weight.s0.reshape(-1, 1))
    zeros = 8.0 if weight.zeros is None else weight.zeros.float()
    offsets = (8.0 - zeros) * scales
    pairs = torch.stack([scales.t(), offsets.t()], -1).to(torch.bfloat16).contiguous()
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
