"""What every kernel must keep, written before it is tuned: one entry for kernel and architectures.

All kernels: no register is spilled, no array lies in local memory, ptxas does not hold wgmma up.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.facts.cubins import ARCHS
from tests.facts.gpus import Work
from tests.facts.occupancy import Occupancy, occupancy
from tests.facts.sass import KernelFacts

# A kernel that an architecture lacks may stand there as an empty text, and be no longer than this.
STUB_INSTRUCTIONS = 16


@dataclass(frozen=True)
class Entry:
    source: str  # csrc/cuda/<source>.cu
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

ENTRIES = (
    Entry(
        source="dequantize_weight",
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


def is_stub(facts: KernelFacts) -> bool:
    instructions = facts.opcodes.total() - facts.plain["NOP"]
    return facts.loop is None and instructions <= STUB_INSTRUCTIONS
