"""What every Triton kernel must keep on every architecture, and the calls it is compiled for.

As in tests/facts/limits.py: written before tuning; no spills anywhere. `static_shared` bounds all
of a kernel's shared memory, which Triton sizes.
"""

from dataclasses import dataclass

import torch

from lowbit.bench.cases import DEQUANTIZE, Case
from lowbit.bench.weight_specs import WeightSpec
from lowbit.formats.weight_format import ZERO_KINDS
from lowbit.ops.dequantize_weight import OUT_DTYPES
from tests.facts.gpus import Work
from tests.facts.limits import Entry


@dataclass(frozen=True)
class Limits:
    """A kernel and the calls that it is compiled for, the most telling first."""

    entry: Entry
    calls: tuple[Case, ...]


def _call(dtype: torch.dtype, **spec) -> Case:
    return Case(DEQUANTIZE, WeightSpec(n=64, k=4096, **{"block_k": 128, **spec}), dtype=dtype)


_E4M3, _E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu
_SCALES = dict(zip(ZERO_KINDS, (torch.float32, torch.float16, torch.bfloat16, _E4M3), strict=True))
_CALLS = (
    _call(torch.float16, zeros="value", bits=3, zero_dtype=torch.float32, scales=_E4M3, s0="rows"),
    _call(torch.bfloat16, zeros="code"),
    _call(torch.float32, zeros="midpoint", bits=7, scales=_E8M0, s0="tensor"),
    _call(torch.float32, zeros="value", bits=4, table="random", block_k=0),
    *(_call(d, bits=b, zeros="code") for b in range(1, 9) for d in OUT_DTYPES),
    *(_call(torch.float32, bits=b, zeros=z, scales=s) for b in (3, 7) for z, s in _SCALES.items()),
    *(_call(torch.float32, bits=b, table="random") for b in range(1, 5)),
    _call(torch.float32, block_k=48, block_n=3, zeros="value"),
    _call(torch.float32, block_k=7, zeros="code", zero_dtype=torch.bfloat16),
)
_N, _K = 4096, 14336

LIMITS = (
    Limits(
        Entry(
            source=DEQUANTIZE,
            kernel="_dequantize_weight_kernel",
            instances=1,
            threads=128,
            # Eight programs of a multiprocessor have 128 KiB of output on their way.
            registers=64,
            blocks=8,
            static_shared=8192,  # one tile of float32, to turn it round once
            requires=("LDG", "STG.128"),
            # Fused roundings and flushed subnormals would differ from the reference.
            forbids=("FFMA", "FFMA2", "FMUL.FTZ", "FADD.FTZ", "FMUL2.FTZ", "FADD2.FTZ"),
            # 248 instructions for 16 weights were counted in the binary of 9.0.
            work=Work(
                f"{_N}x{_K}, 4 bits g128 to bfloat16",
                bytes=_N * _K * (4 / 8 + 3 / 128 + 2),
                operations={"instructions": 248 * _N * _K / 16 / 32},
            ),
        ),
        tuple(dict.fromkeys(_CALLS)),
    ),
)
