"""The tiles of weight_only_linear: a pure function of shape, format and device, without trials.

A program owns `rows` of the weight and `block_m` rows of x. Few programs would leave most of a GPU
without work and too few bytes on their way, so K is cut into `splits`, each a program's; their sums
are added in order. Rows of a result must not depend on how many there are, so `splits` may depend
on the weight and the device only; with many rows of x one program walks all splits, in that order.
"""

from typing import NamedTuple

import torch

# What a multiprocessor gets of the memory's bandwidth, bytes a microsecond, by compute capability:
# data sheets of A100, L40S, H200, B200, RTX 5090. The nearest lower one serves the others.
BANDWIDTH = {80: 18900, 89: 6100, 90: 36400, 100: 54000, 120: 10500}
LATENCY = 0.8  # microseconds from a load to its data, under load
START = 1.0  # microseconds until a program's first loads are on their way
SECOND_KERNEL = 1.5  # microseconds that adding the parts of K costs at least
RESIDENT = 4  # programs of a multiprocessor, by their registers
ROWS, WARPS = 64, 4  # a warp has the rows of a tensor core's product
# Chunks of K in a program: one is multiplied, the others are on their way. By bytes of an operand,
# as BLOCK_HEIGHTS; more of float32 would cost registers that the products need.
STAGES = {2: 4, 4: 3}
MOST_SPLITS = 32
MOST_ROWS_IN_PARTS = 256  # of x: bounds the memory that parts of K take
# Rows of x in a tile: powers of two in this range. Tensor cores pad fewer than 16 rows.
BLOCK_HEIGHTS = {2: (16, 32), 4: (1, 8)}

# Found by measurement: (compute capability, n, k, bits) -> splits. Nothing is measured yet.
TUNED: dict[tuple[int, int, int, int], int] = {}


class Device(NamedTuple):
    """What the choice knows of a GPU."""

    capability: int  # 90: 9.0
    multiprocessors: int


class Tiles(NamedTuple):
    """How a product is cut."""

    rows: int  # of the weight, a program
    block_m: int  # rows of x, a program
    splits: int  # pieces of K, whose sums are added in ascending order
    splits_of_part: int  # how many of them a program walks: 1 or all
    warps: int
    stages: int  # chunks of K that are loaded ahead


def device_kind(tensor: torch.Tensor) -> Device:
    """The kind of the tensor's GPU."""
    properties = torch.cuda.get_device_properties(tensor.device)
    return Device(10 * properties.major + properties.minor, properties.multi_processor_count)


def choose(m: int, n: int, k: int, bits: int, columns: int, itemsize: int, device: Device) -> Tiles:
    """Tiles for x[m, k] and a weight [n, k], whose chunks of K are `columns` wide.

    itemsize: bytes of an operand.
    """
    least, most = BLOCK_HEIGHTS[itemsize]
    block_m = min(max(least, 1 << (m - 1).bit_length()), most)
    splits = TUNED.get((device.capability, n, k, bits)) or choose_splits(
        n, k, bits, columns, device
    )
    programs = -(-n // ROWS) * -(-m // block_m)
    enough = programs >= RESIDENT * device.multiprocessors or m > MOST_ROWS_IN_PARTS
    splits_of_part = splits if enough else 1
    return Tiles(ROWS, block_m, splits, splits_of_part, WARPS, STAGES[itemsize])


def most_registers(cut: Tiles, integers: bool) -> int | None:
    """Of a thread, so that as many programs are resident as the choice counts on.

    Left to itself ptxas spills a few words to make room for one more. Table entries and float32
    weights take the registers of a program; for the sums of a high tile there is no bound.
    """
    if cut.block_m > 16:
        return None
    programs = RESIDENT if integers else RESIDENT - 1
    return 65536 // (programs * 32 * cut.warps) // 8 * 8


def choose_splits(n: int, k: int, bits: int, columns: int, device: Device) -> int:
    """The splits of the least time for one row of x; each has two chunks of K at least."""
    most = max(1, min(MOST_SPLITS, -(-k // columns) // 2))
    candidates = [1 << i for i in range(most.bit_length())]
    return min(candidates, key=lambda splits: split_time(splits, n, k, bits, columns, device))


def split_time(splits: int, n: int, k: int, bits: int, columns: int, device: Device) -> float:
    """Microseconds for one row of x: bytes on their way, waves of programs, adding the parts."""
    chunks = -(-k // columns)
    per_sm = -(-(-(-n // ROWS) * splits) // device.multiprocessors)  # of the fullest one
    chunk_bytes = ROWS * columns * bits / 8
    on_their_way = min(per_sm, RESIDENT) * (min(STAGES.values()) - 1) * chunk_bytes
    rate = min(bandwidth(device), on_their_way / LATENCY)
    reading = per_sm * -(-chunks // splits) * chunk_bytes / rate
    starting = START * -(-per_sm // RESIDENT)
    if splits == 1:
        return starting + reading
    parts = 2 * 4 * splits * n  # bytes, written and read
    return starting + reading + SECOND_KERNEL + parts / (bandwidth(device) * device.multiprocessors)


def bandwidth(device: Device) -> int:
    """Of a multiprocessor, in bytes a microsecond."""
    known = [capability for capability in BANDWIDTH if capability <= device.capability]
    return BANDWIDTH[max(known, default=min(BANDWIDTH))]
