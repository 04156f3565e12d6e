"""What every kernel must keep, written before it is tuned: one entry for kernel and architectures.

All kernels: no register is spilled, no array lies in local memory, ptxas does not hold wgmma up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from tests.facts.cubins import ARCHS
from tests.facts.gpus import Work
from tests.facts.loops import MMA
from tests.facts.occupancy import Occupancy, occupancy
from tests.facts.sass import KernelFacts


@dataclass(frozen=True)
class Entry:
    source: str  # from the root of the tree
    kernel: str  # pattern of the short name with its template arguments, as of fnmatch
    instances: int
    threads: int  # of a block, as launched
    registers: int  # at most
    blocks: int  # on a multiprocessor, at least
    work: Work
    archs: tuple[str, ...] = ARCHS
    static_shared: int = 0  # bytes, at most
    dynamic_shared: int = 0  # bytes that the launch asks for
    requires: tuple[str, ...] = ()  # opcodes; STG.128 is found in STG.E.128
    forbids: tuple[str, ...] = ()
    per_mma: float | None = None  # instructions of the hot loop for each MMA, at most

    def matches(self, facts: KernelFacts) -> bool:
        return fnmatchcase(facts.name, self.kernel)

    def occupancy(self, facts: KernelFacts) -> Occupancy:
        shared = facts.shared + self.dynamic_shared
        return occupancy(facts.capability, facts.registers, self.threads, shared)


# Codes, float16 scales and uint8 zeros of groups of 128, bfloat16 output. 265 instructions for a
# run of 16 weights were counted in the binary of 9.0.
_N, _K = 4096, 14336
_DEQUANTIZE_WEIGHT = Work(
    f"{_N}x{_K}, 4 bits g128 to bfloat16",
    bytes=_N * _K * (4 / 8 + 3 / 128 + 2),
    operations={"instructions": 265 * _N * _K / 16 / 32},
)


_GEMM = 4096


def _tiled_gemm() -> Iterator[Entry]:
    """A quarter of a multiprocessor issues one instruction a clock and takes 8 clocks (A100) or at
    least 16 (8.9, 12.0) for an HMMA, 32 for 128 columns of an HGMMA: half of them may be issued.
    The small tile, whose addresses serve half as many MMA, may have three quarters.
    """
    gemm = Entry(
        source="examples/cuda/tiled_gemm.cu",
        kernel="tiled_gemm_kernel<GemmTile<128u, 128u> >",
        instances=1,
        threads=256,
        registers=128,
        blocks=2,
        requires=("HMMA", "LDSM", "LDGSTS"),
        per_mma=4,
        dynamic_shared=4 * (128 + 128) * 64,
        archs=("80", "90a", "100a"),
        work=Work(
            f"{_GEMM}^3, float16",
            bytes=3 * 2 * _GEMM**2,
            operations={"f16": 2 * _GEMM**3},
        ),
    )
    yield gemm
    yield replace(gemm, blocks=1, per_mma=8, archs=("89", "120a"))  # shared memory for one
    yield replace(
        gemm,
        kernel="tiled_gemm_kernel<GemmTile<64u, 64u> >",
        threads=128,
        blocks=3,
        per_mma=6,
        dynamic_shared=4 * (64 + 64) * 64,
        archs=ARCHS,
    )
    for columns in (128, 256):
        yield replace(
            gemm,
            kernel=f"tiled_gemm_sm90_kernel<Sm90GemmTile<{columns}u> >",
            threads=384,
            registers=168,  # all there are for so many threads; a third of them passes some on
            blocks=1,
            requires=("HGMMA", "UTMALDG", "SYNCS", "USETMAXREG"),
            per_mma=columns / 8,
            dynamic_shared=4 * (128 + columns) * 128 + 64,
            archs=("90a",),
        )


ENTRIES = (
    Entry(
        source="csrc/cuda/dequantize_weight.cu",
        kernel="dequantize_weight_kernel<*>",
        instances=24,
        threads=256,
        # Five blocks of a multiprocessor have enough loads in flight to keep the memory busy.
        registers=48,
        blocks=5,
        requires=("LDG", "STG.128"),
        # Fused roundings would differ from the reference; MUFU starts a division.
        forbids=("FFMA", "FFMA2", "MUFU"),
        work=_DEQUANTIZE_WEIGHT,
    ),
    Entry(
        source="examples/cuda/vector_scale.cu",
        kernel="vector_scale_kernel<*>",
        instances=3,
        threads=256,
        # As many threads as a multiprocessor of any architecture holds have the most loads in
        # flight: 1536 of 9.0's 2048 are 6 blocks.
        registers=40,
        blocks=6,
        requires=("LDG.128", "STG.128"),
        work=Work("2^26 bfloat16", bytes=2 * 2 * 2**26, operations={}),
    ),
    *_tiled_gemm(),
)


def violations(entry: Entry, facts: KernelFacts) -> list[str]:
    """Sentences on what the kernel does not keep; none if all is well."""
    found = []

    def at_most(what: str, most: float, value: float) -> None:
        if value > most:
            found.append(f"{what} must be at most {most:g}, got {value:g}")

    at_most("bytes of stack", 0, facts.stack)
    at_most("spill stores", 0, facts.spill_stores)
    at_most("spill loads", 0, facts.spill_loads)
    at_most("registers", entry.registers, facts.registers)
    at_most("bytes of static shared memory", entry.static_shared, facts.shared)
    found += [
        f"{opcode} is required, got none" for opcode in entry.requires if not facts.has(opcode)
    ]
    found += [f"{opcode} is forbidden, got some" for opcode in entry.forbids if facts.has(opcode)]
    fits = entry.occupancy(facts)
    if fits.blocks < entry.blocks:
        found.append(
            f"blocks of a multiprocessor must be at least {entry.blocks}, "
            f"got {fits.blocks} by {' and '.join(fits.limits)}"
        )
    if entry.per_mma is not None:
        if facts.loop is None or facts.loop.per_mma is None:
            found.append("the hot loop must have an MMA, got none")
        else:
            at_most("instructions of the hot loop for each MMA", entry.per_mma, facts.loop.per_mma)
    return found


WRITES = frozenset({"ST", "STG", "STS", "RED", "REDG", "ATOM", "ATOMG", "UTMASTG", "UBLKCP"})


def is_stub(facts: KernelFacts) -> bool:
    """Whether the kernel of an architecture that lacks it does nothing there but stop."""
    # Code that does not return ends in a branch to itself.
    loops = facts.loop is not None and facts.loop.instructions > 1
    works = any(MMA.fullmatch(name) or name in WRITES for name in facts.plain)
    return not loops and not works
