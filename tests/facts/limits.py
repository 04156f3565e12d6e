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

_SIDE = 8192


def _relayout_work(instructions: int) -> Work:
    """Those for a thread's 128 codes of 4 bits were counted in the binary of 9.0."""
    return Work(
        f"{_SIDE}x{_SIDE}, 4 bits",
        bytes=2 * _SIDE**2 * 4 / 8,
        operations={"instructions": instructions * _SIDE**2 / 128 / 32},
    )


def _relayout() -> Iterator[Entry]:
    """A thread holds one plane of its tile and asks for all its words before it needs one: 16 words
    a thread, of which a multiprocessor of 9.0 has 65 KB on their way with 8 blocks; at 700 ns of
    latency a third of that is what its share of the memory takes. 8 bits have 32 words.
    """
    unpack = Entry(
        source="csrc/cuda/prepack_weight.cu",
        kernel="unpack_weight_kernel<[1-7]>",
        instances=7,
        threads=128,
        registers=64,
        blocks=8,
        requires=("LDG.128", "STG"),
        forbids=("MUFU",),  # it starts a division
        work=_relayout_work(430),
    )
    pack = replace(
        unpack,
        kernel="prepack_weight_kernel<[1-7]>",
        requires=("LDG", "STG.128"),
        work=_relayout_work(490),
    )
    yield unpack
    yield pack
    for entry in (unpack, pack):
        kernel = entry.kernel.replace("[1-7]", "8")
        yield replace(entry, kernel=kernel, instances=1, registers=96, blocks=5)


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


# Codes, float16 scales and uint8 zeros of groups of 128; 16 rows of x, read by 128 blocks. 2.1
# instructions a weight: docs/performance.md.
_LINEAR = 8192
_WEIGHT_ONLY_LINEAR = Work(
    f"{_LINEAR}^2, 4 bits g128, M=16",
    bytes=_LINEAR**2 * (4 / 8 + 3 / 128) + 4 * 16 * _LINEAR,
    operations={"instructions": 2.1 * _LINEAR**2 / 32, "f16": 2 * 16 * _LINEAR**2},
)


def _weight_only_linear() -> Iterator[Entry]:
    """The loop over units of 32 columns: for each lane 32 weights become numbers, in 36
    instructions for 4-bit codes in float16 (two of three bits and three of two planes more), and
    with those that load, count and branch they serve 12 MMA in the small tile, 48 in the large.
    """
    small = Entry(
        source="csrc/cuda/weight_only_linear.cu",
        kernel="weight_only_linear_kernel<*>",
        instances=1,
        threads=256,
        registers=128,  # two blocks of a multiprocessor
        blocks=2,
        requires=("HMMA", "LDSM", "LDGSTS", "LOP3", "STG"),
        per_mma=6,
        work=_WEIGHT_ONLY_LINEAR,
    )
    large = replace(small, registers=255, blocks=1)
    # (bits, table, 1 float16 or 2 bfloat16): instructions for each MMA in small and large tiles
    loops = {
        (2, "false", 1): (6, 3.5),
        (2, "false", 2): (7, 4),
        (3, "false", 1): (10.5, 5),
        (3, "false", 2): (10.5, 5),
        (4, "false", 1): (6, 3.5),
        (4, "false", 2): (7, 3.5),
        (8, "false", 1): (6, 3.5),
        (8, "false", 2): (10.5, 5),
        (4, "true", 1): (13.5, 5.5),
        (4, "true", 2): (13.5, 5.5),
    }
    for (bits, table, operand), (of_small, of_large) in loops.items():
        name = f"weight_only_linear_kernel<{bits}, {table}, {operand}, "
        yield replace(small, kernel=f"{name}16u>", per_mma=of_small)
        large = replace(large, kernel=f"{name}64u>", per_mma=of_large)
        yield replace(large, archs=tuple(arch for arch in ARCHS if arch != "120a"))
        # An MMA takes twice as long there, so that more instructions hide behind it.
        yield replace(large, archs=("120a",), per_mma=of_large + 0.5)
    yield replace(
        small,
        kernel="weight_only_linear_sums_kernel",
        registers=40,
        blocks=6,
        requires=("LDG", "STG"),
        per_mma=None,
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
    *_relayout(),
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
    *_weight_only_linear(),
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
