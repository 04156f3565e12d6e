"""How many blocks of a kernel share a multiprocessor, and what keeps more away."""

from dataclasses import dataclass

KIB = 1024
WARP = 32
SUBPARTITIONS = 4
REGISTERS = 64 * KIB  # of a multiprocessor, and what one block may have at most
REGISTER_GRAIN = 256  # registers are given to warps in so many
SHARED_GRAIN = 128
RESERVED_SHARED = KIB  # of each block, kept by the driver from 8.0 on
MAX_THREAD_REGISTERS = 256
MAX_BLOCK_THREADS = 1024


@dataclass(frozen=True)
class Multiprocessor:
    threads: int
    shared: int
    blocks: int


# CUDA Programming Guide, technical specifications per compute capability; threads a multiple of 32.
MULTIPROCESSORS = {
    80: Multiprocessor(threads=2048, shared=164 * KIB, blocks=32),
    89: Multiprocessor(threads=1536, shared=100 * KIB, blocks=24),
    90: Multiprocessor(threads=2048, shared=228 * KIB, blocks=32),
    100: Multiprocessor(threads=2048, shared=228 * KIB, blocks=32),
    120: Multiprocessor(threads=1536, shared=100 * KIB, blocks=24),
}


@dataclass(frozen=True)
class Occupancy:
    blocks: int  # on one multiprocessor; 0: the kernel does not launch
    limits: tuple[str, ...]  # which of warps, registers, shared and blocks allow no more
    share: float  # of the multiprocessor's warps


def _round_up(value: int, grain: int) -> int:
    return -(-value // grain) * grain


def _blocks_by_registers(registers: int, warps: int) -> int:
    """Each warp lives in one quarter of the multiprocessor, with a quarter of the registers."""
    of_warp = _round_up(registers * WARP, REGISTER_GRAIN)
    if of_warp * _round_up(warps, SUBPARTITIONS) > REGISTERS:
        return 0
    return REGISTERS // SUBPARTITIONS // of_warp * SUBPARTITIONS // warps


def occupancy(capability: int, registers: int, threads: int, shared: int) -> Occupancy:
    """Of blocks of `threads` with `shared` bytes, static and dynamic, without the reserved KiB.

    Named barriers are left out: they would limit kernels that use three or more.
    """
    if not 1 <= registers <= MAX_THREAD_REGISTERS:
        raise ValueError(f"occupancy: registers must be 1 to 256, got {registers}")
    if not 1 <= threads <= MAX_BLOCK_THREADS:
        raise ValueError(f"occupancy: threads must be 1 to 1024, got {threads}")
    sm = MULTIPROCESSORS[capability]
    warps = _round_up(threads, WARP) // WARP
    of_block = _round_up(shared + RESERVED_SHARED, SHARED_GRAIN)
    allowed = {
        "warps": sm.threads // WARP // warps,
        "registers": _blocks_by_registers(registers, warps),
        "shared": sm.shared // of_block,
        "blocks": sm.blocks,
    }
    blocks = min(allowed.values())
    limits = tuple(name for name, count in allowed.items() if count == blocks)
    return Occupancy(blocks, limits, blocks * warps * WARP / sm.threads)
