"""bitsandbytes' 4-bit product on the CPU: its packing for AVX-512, bfloat16 activations."""

from __future__ import annotations

import torch

from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers._packages import missing

# What its quantizer takes and its blocked kernel reads.
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_ROWS = 32


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    if workload.x.device.type != "cpu":
        return "it runs on cpu here"
    if workload.weight.bits != 4:
        return "it has 4 bits"
    if reason := missing("bitsandbytes"):
        return reason
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        return "its packed kernel needs AVX-512 with BF16"
    n, k = workload.weight.shape
    if workload.weight.group_size not in _BLOCKS or k % workload.weight.group_size or n % _ROWS:
        blocks = ", ".join(map(str, _BLOCKS))
        return f"it takes blocks of {blocks} that divide K, and N % {_ROWS} == 0"
    return None


def prepare(name: str, workload: Workload, element: str) -> Entry:
    """The float weight in its own 4-bit format, block maxima in bfloat16."""
    from bitsandbytes import functional

    original, block = workload.layer.original.contiguous(), workload.weight.group_size
    codes, state = functional.quantize_4bit(original, blocksize=block, quant_type=element)
    packed, state = functional._convert_weight_packed_for_cpu(codes, state)
    x, shape, table = workload.x.to(torch.bfloat16), tuple(original.shape), state.code
    return Entry(
        name,
        lambda p, maxima: torch.ops.bitsandbytes.gemv_4bit(x, p, shape, maxima, table, block),
        (packed, state.absmax),
        _dequantized(packed, state),
        arithmetic="bf16",
    )


def _dequantized(packed: torch.Tensor, state) -> torch.Tensor:
    """The float matrix by its own unpacking and dequantizer, from what the kernel reads."""
    import copy

    from bitsandbytes import functional

    codes, plain = functional._convert_weight_packed_for_cpu_inverse(packed, copy.copy(state))
    maxima = state.absmax.t().contiguous().float().flatten()
    return torch.ops.bitsandbytes.dequantize_4bit(
        codes, maxima, state.blocksize, state.quant_type, tuple(state.shape), torch.float32
    )
