"""What every Triton kernel must keep on every architecture, and the calls it is compiled for.

As in tests/facts/limits.py: written before tuning; no spills anywhere. `static_shared` bounds all
of a kernel's shared memory, which Triton sizes.
"""

from dataclasses import dataclass, replace

import torch

from lowbit.bench.cases import DEQUANTIZE, LINEAR, Case
from lowbit.bench.weight_specs import WeightSpec
from lowbit.formats.weight_format import ZERO_KINDS
from lowbit.ops.dequantize_weight import OUT_DTYPES
from tests.facts.gpus import Work
from tests.facts.limits import Entry


@dataclass(frozen=True)
class Limits:
    """The kernels of an op's calls, and those calls, the most telling first."""

    entries: tuple[Entry, ...]
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

_DEQUANTIZE = Limits(
    (
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
    ),
    tuple(dict.fromkeys(_CALLS)),
)


def _linear(rows: int, dtype: torch.dtype, mode: str = "exact", **spec) -> Case:
    weight = WeightSpec(n=64, k=4096, **{"block_k": 128, "zeros": "code", **spec})
    return Case(LINEAR, weight, (rows,), dtype, mode, bias="x")


# Three programs of a multiprocessor have 36 KiB of codes on their way: in 800 ns 132 of them are
# enough for 4.8 TB/s.
_FEW_ROWS = Entry(
    source=LINEAR,
    kernel="_weight_only_linear_kernel",
    instances=1,
    threads=128,
    registers=128,
    blocks=3,
    static_shared=32768,
    requires=("LDGSTS.128",),
    # Flushed subnormals would differ from the reference.
    forbids=("FMUL.FTZ", "FADD.FTZ", "FFMA.FTZ"),
    work=Work(
        "4096x4096, 4 bits g128, one row of bfloat16",
        bytes=4096 * 4096 * (4 / 8 + 3 / 128),
        operations={"instructions": 6 * 4096 * 4096 / 32},
    ),
)
_ADD_PARTS = Entry(
    source=LINEAR,
    kernel="_weight_only_linear_parts_kernel",
    instances=1,
    threads=32,
    registers=64,
    blocks=16,
    requires=("LDG.128",),
    forbids=_FEW_ROWS.forbids,
    work=Work("8 parts of 4096", bytes=4 * 9 * 4096, operations={}),
)
# The tensor core's instruction by architecture, the same for any number of rows: its order of sums
# is that of a row's result. For 16 rows of x six instructions a weight at most: 16 x 16 weights are
# two HMMA of a warp, 64 x 16 one HGMMA or UTCHMMA of four. Ten on 10.0, which has its operands and
# sums brought to it and waited for, product by product.
_MMA = {"HMMA": (("80", "89", "120a"), 24), "HGMMA": (("90a",), 48), "UTCHMMA": (("100a",), 80)}


def _by_tensor_core(entry: Entry, tuned: bool) -> tuple[Entry, ...]:
    return tuple(
        replace(
            entry,
            archs=archs,
            requires=(*entry.requires, mma),
            per_mma=per_mma if tuned else None,
        )
        for mma, (archs, per_mma) in _MMA.items()
    )


_BF16, _FP16 = torch.bfloat16, torch.float16
_GROUPS = (16, 32, 64)
_LINEAR = (
    Limits(
        (*_by_tensor_core(_FEW_ROWS, tuned=True), _ADD_PARTS),
        (_linear(1, _BF16), _linear(16, _FP16), _linear(1, _BF16, zeros="midpoint")),
    ),
    Limits(
        (*_by_tensor_core(replace(_FEW_ROWS, requires=()), tuned=False), _ADD_PARTS),
        tuple(
            dict.fromkeys(
                (
                    _linear(1, _BF16, bits=3, block_k=32),
                    _linear(16, _FP16, bits=8, scales=_E4M3, s0="rows"),
                    *(_linear(1, _BF16, bits=b, block_k=g) for b in range(1, 9) for g in _GROUPS),
                )
            )
        ),
    ),
    Limits(  # entries of tables are read from memory, and their addresses take registers
        (
            *_by_tensor_core(
                replace(_FEW_ROWS, requires=(), registers=168, static_shared=49152), tuned=False
            ),
            _ADD_PARTS,
        ),
        (_linear(1, _BF16, "bf16", bits=4, zeros="none", table="random"),),
    ),
    Limits(  # many rows: a program walks all of K, and has more sums
        _by_tensor_core(replace(_FEW_ROWS, registers=224, blocks=2, static_shared=49152), False),
        (_linear(300, _BF16), _linear(300, _FP16, zeros="midpoint")),
    ),
    Limits(
        # Products in float32, none in tf32.
        (
            replace(
                _FEW_ROWS,
                registers=168,
                requires=("FFMA",),
                forbids=(*_FEW_ROWS.forbids, *_MMA),
            ),
            _ADD_PARTS,
        ),
        (
            _linear(1, torch.float32),
            _linear(16, torch.float32, bits=3, zeros="value", zero_dtype=torch.float32),
            _linear(5, _BF16, bits=5, block_k=48, zeros="value", zero_dtype=_FP16),
            _linear(16, torch.float32, bits=4, table="random", block_k=7),
        ),
    ),
)

LIMITS = (_DEQUANTIZE, *_LINEAR)
