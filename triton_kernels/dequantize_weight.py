"""dequantize_weight in Triton: tiles of rows by columns; each word of codes is loaded once.

Scales of 8 bits are read as bytes and decoded by their bits: Triton has e4m3 from sm_89 on only,
and no e8m0.
"""

import torch
import triton
import triton.language as tl

TILE = 2048  # weights of a program: 16 a thread
MAX_COLUMNS = 512
MIN_COLUMNS = 32  # a word of the narrowest plane

# The zero kinds of a weight format.
NONE, MIDPOINT, CODE, VALUE = (tl.constexpr(kind) for kind in range(4))
# How a stored byte is read; None for the types that Triton converts by itself.
ENCODINGS = {torch.float8_e4m3fn: "e4m3", torch.float8_e8m0fnu: "e8m0"}


@triton.jit
def _load_codes(
    plane, inside, first, k, BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The codes [ROWS, COLUMNS] from column `first` on, of planes that begin at `plane` [ROWS].

    Columns behind k hold what the padding holds, or 0.
    """
    WIDTH: tl.constexpr = 8 if BITS == 8 else 4 if BITS > 3 else 2 if BITS > 1 else 1
    PER_WORD: tl.constexpr = 32 // WIDTH
    num_words = (k - 1) // PER_WORD + 1
    index = first // PER_WORD + tl.arange(0, COLUMNS // PER_WORD)
    mask = inside[:, None] & (index < num_words)[None, :]
    words = tl.load(plane[:, None] + index[None, :], mask, other=0)
    shifts = tl.arange(0, PER_WORD) * WIDTH
    fields = (words[:, :, None] >> shifts[None, None, :]) & ((1 << WIDTH) - 1)
    codes = tl.reshape(fields, (ROWS, COLUMNS))
    if BITS > WIDTH:
        higher = _load_codes(plane + num_words, inside, first, k, BITS - WIDTH, ROWS, COLUMNS)
        codes |= higher << WIDTH
    return codes


@triton.jit
def small_integer_to_float(integer):
    """Below 2**23: the integer as the low bits of 2**23 + integer. Faster than a conversion."""
    return (integer | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0


@triton.jit
def load_stored(pointers, mask, ENCODING: tl.constexpr):
    """Stored scales or zeros in float32."""
    stored = tl.load(pointers, mask, other=0)
    if ENCODING == "e8m0":
        exponent = stored.to(tl.int32)
        bits = tl.where(exponent == 0, 1 << 22, exponent << 23)  # 2**-127 is subnormal
        return tl.where(exponent == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)
    elif ENCODING == "e4m3":
        byte = stored.to(tl.int32)
        magnitude = byte & 0x7F
        # With float32's bias in place of its own, 120 less; exact for subnormals too.
        value = (magnitude << 20).to(tl.float32, bitcast=True) * 1.329227995784916e36
        bits = tl.where(magnitude == 0x7F, 0x7FC00000, value.to(tl.int32, bitcast=True))
        return (bits | ((byte & 0x80) << 24)).to(tl.float32, bitcast=True)
    else:
        return stored.to(tl.float32)


@triton.jit
def multiply(a, b):
    """a * b rounded, as the value rule has it, whatever is added to it.

    The option enable_fp_fusion=False is not enough: the ptxas of triton 3.6 fuses mul.rn.f32x2 and
    add.rn.f32x2 on sm_100 and sm_120 all the same.
    """
    return tl.inline_asm_elementwise(
        "mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _spread(runs, RUN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One value a run of columns -> one a column."""
    columns = tl.broadcast_to(runs[:, :, None], (ROWS, COLUMNS // RUN, RUN))
    return tl.reshape(columns, (ROWS, COLUMNS))


@triton.jit(do_not_specialize=["n"])
def _dequantize_weight_kernel(
    qweight, scales, zeros, table, s0, out, n, k,
    qweight_stride, scales_stride, zeros_stride, s0_stride, block_n,
    BLOCK_K: tl.constexpr, RUN: tl.constexpr, BITS: tl.constexpr, ZERO_KIND: tl.constexpr,
    ENCODING: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    num_tiles = (k - 1) // COLUMNS + 1
    first_row = tl.program_id(0) // num_tiles * ROWS
    first = tl.program_id(0) % num_tiles * COLUMNS
    # Indices are compared with what is left: their sums may be beyond 2**31 in the last tiles.
    inside = tl.arange(0, ROWS) < n - first_row
    rows = first_row + tl.arange(0, ROWS)
    blocks = (rows // block_n).to(tl.int64)[:, None]  # dividing 64 bits is slow
    rows = rows.to(tl.int64)

    codes = _load_codes(qweight + rows * qweight_stride, inside, first, k, BITS, ROWS, COLUMNS)
    numbers = small_integer_to_float(codes) if table is None else tl.load(table + codes)

    # Columns from a multiple of RUN on are in one group.
    starts = tl.arange(0, COLUMNS // RUN) * RUN
    mask = inside[:, None] & (starts < k - first)[None, :]
    groups = ((first + starts) // BLOCK_K)[None, :]
    scale = load_stored(scales + blocks * scales_stride + groups, mask, ENCODING)
    if s0 is not None:
        scale *= tl.load(s0 + rows * s0_stride, inside, other=0)[:, None]
    if zeros is not None:
        zero = load_stored(zeros + blocks * zeros_stride + groups, mask, None)

    if ZERO_KIND == MIDPOINT:
        numbers -= 1 << (BITS - 1)
    if ZERO_KIND == CODE:
        numbers -= _spread(zero, RUN, ROWS, COLUMNS)
    weights = multiply(numbers, _spread(scale, RUN, ROWS, COLUMNS))
    if ZERO_KIND == VALUE:
        weights += _spread(zero, RUN, ROWS, COLUMNS)

    columns = tl.arange(0, COLUMNS)
    mask = inside[:, None] & (columns < k - first)[None, :]
    pointers = out + (rows * k + first)[:, None] + columns[None, :]
    tl.store(pointers, weights.to(out.dtype.element_ty), mask)


def dequantize_weight(
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    out: torch.Tensor,
    *,
    bits: int,
    block_n: int,
    block_k: int,
    zero_kind: int,
) -> None:
    """Write the weight [n, k] into `out`, which is contiguous. All must have been checked."""
    n, k = out.shape
    if n == 0:
        return
    columns = max(MIN_COLUMNS, min(MAX_COLUMNS, triton.next_power_of_2(k)))
    rows = TILE // columns
    # A block_k for each k of a weight without groups would compile a kernel for each.
    block_k = min(block_k, triton.next_power_of_2(k))
    encoding = ENCODINGS.get(scales.dtype)
    with torch.cuda.device_of(out):
        _dequantize_weight_kernel[triton.cdiv(n, rows) * triton.cdiv(k, columns),](
            qweight,
            scales.view(torch.uint8) if encoding else scales,
            zeros,
            table,
            s0,
            out,
            n,
            k,
            qweight.stride(0),
            scales.stride(0),
            zeros.stride(0) if zeros is not None else 0,
            s0.dim() if s0 is not None else 0,  # one for all rows, or one a row
            block_n,
            BLOCK_K=block_k,
            RUN=min(block_k & -block_k, columns),
            BITS=bits,
            ZERO_KIND=zero_kind,
            ENCODING=encoding,
            ROWS=rows,
            COLUMNS=columns,
            enable_fp_fusion=False,  # triton 3.9 warns where it is left out
        )
