"""weight_only_linear in Triton: y = x @ weight.T, tiles of weight rows by rows of x.

A program walks K in chunks. The columns of a chunk are taken in phases, every PHASES-th one: a
run of PHASES neighbouring codes is one integer, of which each phase shifts out its code, so that
codes go through shared memory as they are packed, and x comes apart in registers. A tensor core
multiplies the weight's phase (A) with that of x (B) for any number of rows of x alike: which row
of x stands beside it changes nothing, and every order of sums follows from N, K and the device.

Two ways to multiply: SCALED, integers that the operands' dtype holds, whose float32 sums of a
group get the scale; otherwise weights by the value rule in float32, which the operands' dtype
holds (float32) or the mode allows to round.

A model whose linears differ in N and K meets for each of its weight formats one variant of the
kernel for each of the tile heights of x (BLOCK_HEIGHTS), of these twice as many where K is split.
"""

import torch
import triton
import triton.language as tl

from . import tiles
from .dequantize_weight import (
    CODE,
    ENCODINGS,
    MIDPOINT,
    NONE,
    VALUE,
    load_stored,
    multiply,
    small_integer_to_float,
)

LENGTH = tl.constexpr(16)  # columns of a phase: the depth of a tensor core's product
BIG = tl.constexpr(8388608.0)  # 2**23; float32 numbers from there on are integers
PART_SIZE = 128  # sums of a program that adds parts
_TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


@triton.jit
def _load_runs(
    plane, inside, first, k, WIDTH: tl.constexpr, PHASES: tl.constexpr, TAIL: tl.constexpr
):
    """[ROWS, LENGTH]: in the low bits of each the PHASES codes of a run, of planes at `plane`.

    Columns behind k hold what the padding holds, or 0.
    """
    BITS: tl.constexpr = PHASES * WIDTH
    UNIT: tl.constexpr = BITS if BITS > 8 else 8
    PER_UNIT: tl.constexpr = UNIT // BITS
    KIND: tl.constexpr = tl.uint8 if UNIT == 8 else tl.uint16 if UNIT == 16 else tl.int32
    units = plane.to(tl.pointer_type(KIND), bitcast=True)
    runs = tl.arange(0, LENGTH)
    index = first // (UNIT // WIDTH) + runs // PER_UNIT
    mask = inside[:, None]
    if TAIL:  # else the mask is the same all along a row, and loads are wide
        mask = mask & (index < (k - 1) // (UNIT // WIDTH) + 1)[None, :]
    loaded = tl.load(units[:, None] + index[None, :], mask, other=0).to(tl.int32)
    return loaded >> (runs % PER_UNIT * BITS)[None, :]


# Two codes of one phase, from two runs, as numbers of 16 bits less their zeros: codes become the
# low bits of 128 (bfloat16) or 1024 (float16). Operands: the runs, the zeros, and each twice the
# half of a run (a selector of prmt), the shift in it and the mask.
_BFLOAT16_CODES = tl.constexpr("""{
    .reg .b32 t, one, least;
    prmt.b32 t, $1, $2, $4;
    shr.u32 t, t, $6;
    lop3.b32 t, t, $8, 0x43004300, 0xEA;
    mov.b32 one, 0x3F803F80;
    mov.b32 least, 0xC300C300;
    fma.rn.bf16x2 t, t, one, least;
    mov.b32 one, 0xBF80BF80;
    fma.rn.bf16x2 $0, $3, one, t;
}""")
_FLOAT16_CODES = tl.constexpr("""{
    .reg .b32 t, least;
    prmt.b32 t, $1, $2, $4;
    shr.u32 t, t, $6;
    lop3.b32 t, t, $8, 0x64006400, 0xEA;
    mov.b32 least, 0x64006400;
    sub.rn.f16x2 t, t, least;
    sub.rn.f16x2 $0, t, $3;
}""")


@triton.jit
def _integers(runs, zero, PHASE: tl.constexpr, BITS: tl.constexpr):
    """The codes of a phase less their zeros, two at a time, for codes of one plane below 8 bits."""
    SHIFT: tl.constexpr = PHASE * BITS
    return tl.inline_asm_elementwise(
        _BFLOAT16_CODES if zero.dtype == tl.bfloat16 else _FLOAT16_CODES,
        "=r,r,r,r,r,r,r,r,r,r",
        [
            runs,
            zero,
            0x7632 if SHIFT >= 16 else 0x5410,
            SHIFT % 16,
            ((1 << BITS) - 1) * 0x10001,
        ],
        zero.dtype,
        is_pure=True,
        pack=2,
    )


@triton.jit
def _weights(
    codes, table, scale, zero,
    BITS: tl.constexpr, ZERO_KIND: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """What codes multiply x with, in float32; integers or table entries where sums are SCALED."""
    if table is not None:
        numbers = tl.load(table + codes)
    elif SCALED:  # one subtraction makes a number of the code and takes the zero off
        numbers = (codes | 0x4B000000).to(tl.float32, bitcast=True) - (BIG + zero)
    else:
        numbers = small_integer_to_float(codes)
    if not SCALED:
        if ZERO_KIND != NONE and ZERO_KIND != VALUE:
            numbers -= zero
        numbers = multiply(numbers, scale)
        if ZERO_KIND == VALUE:
            numbers += zero
    return numbers


@triton.jit
def _multiply_phases(
    sums, x, low, middle, high, table, scale, zero, left,
    PHASE: tl.constexpr, STEP: tl.constexpr, PHASES: tl.constexpr, LOW: tl.constexpr,
    MIDDLE: tl.constexpr, BITS: tl.constexpr, ZERO_KIND: tl.constexpr, SCALED: tl.constexpr,
    TAIL: tl.constexpr,
):  # fmt: skip
    """sums + weights @ x.T over the columns of x: every STEP-th of the chunk from PHASE on.

    left: how many columns of the chunk are before k.
    """
    if STEP < PHASES:
        HALF: tl.constexpr = x.shape[1] // 2
        even, odd = tl.split(tl.reshape(x, (x.shape[0], HALF, 2)))
        sums = _multiply_phases(
            sums, even, low, middle, high, table, scale, zero, left,
            PHASE, 2 * STEP, PHASES, LOW, MIDDLE, BITS, ZERO_KIND, SCALED, TAIL,
        )  # fmt: skip
        sums = _multiply_phases(
            sums, odd, low, middle, high, table, scale, zero, left,
            PHASE + STEP, 2 * STEP, PHASES, LOW, MIDDLE, BITS, ZERO_KIND, SCALED, TAIL,
        )  # fmt: skip
    else:
        if SCALED and table is None and BITS == LOW and BITS < 8:
            weights = _integers(low, zero.to(x.dtype), PHASE, BITS)
        else:
            codes = (low >> (PHASE * LOW)) & ((1 << LOW) - 1)
            if BITS > LOW:
                codes |= ((middle >> (PHASE * MIDDLE)) & ((1 << MIDDLE) - 1)) << LOW
            if BITS > LOW + MIDDLE:
                codes |= ((high >> PHASE) & 1) << (LOW + MIDDLE)
            weights = _weights(codes, table, scale, zero, BITS, ZERO_KIND, SCALED).to(x.dtype)
        if TAIL:  # what the padding's codes select may be infinite, and x is 0 there
            columns = tl.arange(0, LENGTH) * PHASES + PHASE
            weights = tl.where((columns < left)[None, :], weights, 0.0).to(x.dtype)
        sums = tl.dot(weights, tl.trans(x), sums, input_precision="ieee")
    return sums


@triton.jit
def _finish(sums, offsets, mask, columns, columns_mask, bias, addend):
    """y before it is rounded: the low-rank term is added to float32 sums, then the bias."""
    if addend is not None:
        sums += tl.load(addend + offsets, mask, other=0)
    if bias is not None:
        sums += tl.load(bias + columns, columns_mask, other=0).to(tl.float32)
    return sums


@triton.jit(do_not_specialize=["m", "n", "chunks", "splits", "splits_of_part", "tiles_m"])
def _weight_only_linear_kernel(
    x, qweight, scales, zeros, table, s0, permutation, bias, addend, out,
    m, n, k, x_stride, qweight_stride, scales_stride, zeros_stride, s0_stride, block_n,
    chunks, splits, splits_of_part, tiles_m,
    BLOCK_K: tl.constexpr, GROUPS: tl.constexpr, PHASES: tl.constexpr, BITS: tl.constexpr,
    ZERO_KIND: tl.constexpr, ENCODING: tl.constexpr, SCALED: tl.constexpr, TAIL: tl.constexpr,
    OPERAND: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Sums over the splits of a part of K: y where the part is all of them, else [part, m, n].

    chunks: of a split; GROUPS: columns of scales that a chunk needs, 1 or LENGTH.
    """
    LOW: tl.constexpr = 8 if BITS == 8 else 4 if BITS > 3 else 2 if BITS > 1 else 1
    MIDDLE: tl.constexpr = 2 if BITS - LOW > 1 else 1
    COLUMNS: tl.constexpr = LENGTH * PHASES
    MIDDLE_CODE: tl.constexpr = 1 << (BITS - 1) if ZERO_KIND == MIDPOINT else 0
    parts = splits // splits_of_part
    part = tl.program_id(0) // tiles_m % parts
    first_row = tl.program_id(0) // tiles_m // parts * ROWS
    first_m = tl.program_id(0) % tiles_m * BLOCK_M
    # Indices are compared with what is left: their sums may be beyond 2**31 in the last tiles.
    inside = tl.arange(0, ROWS) < n - first_row
    inside_m = tl.arange(0, BLOCK_M) < m - first_m
    rows = first_row + tl.arange(0, ROWS)
    blocks = (rows // block_n).to(tl.int64)[:, None]
    rows = rows.to(tl.int64)
    rows_m = first_m + tl.arange(0, BLOCK_M).to(tl.int64)

    low_plane = qweight + rows * qweight_stride
    middle_plane = low_plane + ((k - 1) // (32 // LOW) + 1)
    high_plane = middle_plane + ((k - 1) // (32 // MIDDLE) + 1)
    scale_rows = scales + blocks * scales_stride
    if s0 is not None:
        second_scale = tl.load(s0 + rows * s0_stride, inside, other=0)[:, None]
    total = tl.zeros((ROWS, BLOCK_M), tl.float32)
    for split in range(part * splits_of_part, tl.minimum((part + 1) * splits_of_part, splits)):
        sums = tl.zeros((ROWS, BLOCK_M), tl.float32)
        last = tl.minimum((split + 1) * chunks, (k - 1) // COLUMNS + 1)
        for chunk in range(split * chunks, last):
            first = chunk * COLUMNS
            left = k - first
            columns = tl.arange(0, COLUMNS)
            mask = inside_m[:, None]
            if TAIL:
                mask = mask & (columns < left)[None, :]
            if permutation is None:
                index = first + columns
            else:
                index = tl.load(permutation + first + columns, columns < left, other=0)
            x_tile = tl.load(x + (rows_m * x_stride)[:, None] + index[None, :], mask, other=0)

            low = _load_runs(low_plane, inside, first, k, LOW, PHASES, TAIL)
            middle, high = low, low
            if BITS > LOW:
                middle = _load_runs(middle_plane, inside, first, k, MIDDLE, PHASES, TAIL)
            if BITS > LOW + MIDDLE:
                high = _load_runs(high_plane, inside, first, k, 1, PHASES, TAIL)

            # Chunks share the cache lines of scales, so that only few of these loads take long.
            starts = tl.arange(0, GROUPS) * (COLUMNS // GROUPS)
            mask = inside[:, None] & (starts < left)[None, :]
            groups = ((first + starts) // BLOCK_K)[None, :]
            scale = load_stored(scale_rows + groups, mask, ENCODING)
            if s0 is not None:
                scale *= second_scale
            if zeros is None:
                zero = tl.full((1, 1), MIDDLE_CODE, tl.float32)
            else:
                zero = load_stored(zeros + blocks * zeros_stride + groups, mask, None)

            of_chunk = tl.zeros((ROWS, BLOCK_M), tl.float32) if SCALED else sums
            of_chunk = _multiply_phases(
                of_chunk, x_tile.to(OPERAND), low, middle, high, table, scale, zero, left,
                0, 1, PHASES, LOW, MIDDLE, BITS, ZERO_KIND, SCALED, TAIL,
            )  # fmt: skip
            if SCALED:
                sums = tl.fma(of_chunk, tl.broadcast_to(scale, (ROWS, BLOCK_M)), sums)
            else:
                sums = of_chunk
        total += sums

    offsets = rows_m[None, :] * n + rows[:, None]
    mask = inside[:, None] & inside_m[None, :]
    total = _finish(total, offsets, mask, rows[:, None], inside[:, None], bias, addend)
    out += part.to(tl.int64) * m * n
    tl.store(out + offsets, total.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["parts"])
def _weight_only_linear_parts_kernel(sums, bias, addend, out, size, n, parts, SIZE: tl.constexpr):
    """y from the sums [parts, size] over the parts of K, added in ascending order."""
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = offsets < size
    total = tl.zeros((SIZE,), tl.float32)
    for _ in range(parts):
        total += tl.load(sums + offsets, mask, other=0)
        sums += size
    total = _finish(total, offsets, mask, offsets % n, mask, bias, addend)
    tl.store(out + offsets, total.to(out.dtype.element_ty), mask)


def weight_only_linear(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    permutation: torch.Tensor | None,
    bias: torch.Tensor | None,
    addend: torch.Tensor | None,
    out: torch.Tensor,
    *,
    bits: int,
    block_n: int,
    block_k: int,
    zero_kind: int,
    operand: torch.dtype,
    may_round: bool,
) -> None:
    """Write x[m, k] @ weight.T + addend + bias into `out` [m, n]. All must have been checked.

    x: in the precision of the mode, its rows dense. addend: float32 [m, n], dense. operand: the
    dtype of what is multiplied, with exact products; may_round: weights may be rounded to it.
    """
    (m, k), n = x.shape, out.shape[1]
    if out.numel() == 0:
        return
    # A block_k for each k of a weight without groups would compile a kernel for each.
    block_k = min(block_k, triton.next_power_of_2(k))
    group = block_k & -block_k  # columns from a multiple of it on are in one group
    scaled = _multiplies_integers(zero_kind, zeros, table, operand, may_round, group)
    if not scaled and not may_round:
        operand = torch.float32
    phases = min(group // LENGTH.value if scaled else group, 4 if bits == 8 else 8)
    columns = LENGTH.value * phases
    cut = tiles.choose(m, n, k, bits, columns, operand.itemsize, tiles.device_kind(out))
    parts = cut.splits // cut.splits_of_part
    split = parts > 1
    sums = out.new_empty((parts, m, n), dtype=torch.float32) if split else out
    tiles_m = triton.cdiv(m, cut.block_m)
    encoding = ENCODINGS.get(scales.dtype)
    with torch.cuda.device_of(out):
        _weight_only_linear_kernel[triton.cdiv(n, cut.rows) * parts * tiles_m,](
            x,
            qweight,
            scales.view(torch.uint8) if encoding else scales,
            zeros,
            table,
            s0,
            permutation,
            None if split else bias,
            None if split else addend,
            sums,
            m,
            n,
            k,
            x.stride(0),
            qweight.stride(0),
            scales.stride(0),
            zeros.stride(0) if zeros is not None else 0,
            s0.dim() if s0 is not None else 0,  # one for all rows, or one a row
            block_n,
            triton.cdiv(triton.cdiv(k, columns), cut.splits),
            cut.splits,
            cut.splits_of_part,
            tiles_m,
            BLOCK_K=block_k,
            GROUPS=1 if group >= columns else LENGTH.value,
            PHASES=phases,
            BITS=bits,
            ZERO_KIND=zero_kind,
            ENCODING=encoding,
            SCALED=scaled,
            TAIL=k % columns != 0,
            OPERAND=_TRITON_DTYPES[operand],
            ROWS=cut.rows,
            BLOCK_M=cut.block_m,
            num_warps=cut.warps,
            num_stages=cut.stages,
            maxnreg=tiles.most_registers(cut, scaled and table is None),
            enable_fp_fusion=False,  # triton 3.9 warns where it is left out
        )
        if split:
            _weight_only_linear_parts_kernel[triton.cdiv(m * n, PART_SIZE),](
                sums,
                bias,
                addend,
                out,
                m * n,
                n,
                parts,
                SIZE=PART_SIZE,
                num_warps=1,
                enable_fp_fusion=False,
            )


def _multiplies_integers(zero_kind, zeros, table, operand, may_round, group) -> bool:
    """Whether the operands' dtype holds code - zero, or the table, and a group is deep enough."""
    if operand == torch.float32 or group < (4 if may_round else 1) * LENGTH.value:
        return False
    if table is not None:  # of the modes that round it
        return zero_kind == NONE.value and not may_round
    integer_zeros = zero_kind == CODE.value and zeros.dtype == torch.uint8
    return zero_kind in (NONE.value, MIDPOINT.value) or integer_zeros
