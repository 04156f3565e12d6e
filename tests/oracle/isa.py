"""Tables typed by hand from the PTX ISA (9.x), each with the name of its section."""

import numpy as np

# ---- "Matrix Fragments for mma.m16n8k16 with floating point type" and "for mma.m16n8k32" ----
# Arrays of [lane, element] give row and column; groupID = lane >> 2, threadID_in_group = lane % 4.

_LANES = np.arange(32)[:, None]
_GROUP, _THREAD = _LANES >> 2, _LANES % 4


def mma_a(element_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    if element_bytes == 2:
        i = np.arange(8)[None, :]
        row = np.where((i < 2) | ((i >= 4) & (i < 6)), _GROUP, _GROUP + 8)
        return row, _THREAD * 2 + (i & 1) + np.where(i < 4, 0, 8)
    i = np.arange(16)[None, :]
    row = np.where((i < 4) | ((i >= 8) & (i < 12)), _GROUP, _GROUP + 8)
    return row, _THREAD * 4 + (i & 3) + np.where(i < 8, 0, 16)


def mma_b(element_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    if element_bytes == 2:
        i = np.arange(4)[None, :]
        row = _THREAD * 2 + (i & 1) + np.where(i < 2, 0, 8)
    else:
        i = np.arange(8)[None, :]
        row = _THREAD * 4 + (i & 3) + np.where(i < 4, 0, 16)
    return row, _GROUP + 0 * i


def mma_c() -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(4)[None, :]
    return np.where(i < 2, _GROUP, _GROUP + 8), _THREAD * 2 + (i & 1)


# ---- "Register Fragments" of wgmma.mma_async: figures of A and of accumulator D ----


def wgmma_a(element_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Warp w of the warpgroup holds rows 16 w to 16 w + 15, as mma.sync does."""
    row, column = mma_a(element_bytes)
    return np.concatenate([row + 16 * warp for warp in range(4)]), np.tile(column, (4, 1))


def wgmma_d(n: int) -> tuple[np.ndarray, np.ndarray]:
    thread, i = np.arange(128)[:, None], np.arange(n // 2)[None, :]
    row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)
    return row, 8 * (i // 4) + 2 * (thread % 4) + i % 2


# ---- "ldmatrix": the table of rows by thread, and the fragment of each thread ----


def ldmatrix(count: int, transposed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[lane, element]: matrix, row and column that it holds; row r of matrix m is lane 8 m + r's.

    The first row's elements 0 and 1 are thread 0's, 2 and 3 thread 1's, and so on; with .trans the
    matrix is loaded in column-major order.
    """
    i = np.arange(2 * count)[None, :]
    row, column = _LANES // 4 + 0 * i, 2 * (_LANES % 4) + i % 2
    return (i // 2 + 0 * _LANES, column, row) if transposed else (i // 2 + 0 * _LANES, row, column)


# ---- "Matrix Descriptor Format" of wgmma: first bit and size of each field ----

DESCRIPTOR = {"start": (0, 14), "leading": (16, 14), "stride": (32, 14), "base_offset": (49, 3),
              "swizzle": (62, 2)}  # fmt: skip
SWIZZLE_FIELD = {0: 0, 128: 1, 64: 2, 32: 3}  # by bytes


def encode_descriptor(start: int, leading: int, stride: int, swizzle: int) -> int:
    """matrix-descriptor-encode(x) = (x & 0x3FFFF) >> 4 for the three places."""
    fields = {"start": (start & 0x3FFFF) >> 4, "leading": (leading & 0x3FFFF) >> 4,
              "stride": (stride & 0x3FFFF) >> 4, "swizzle": SWIZZLE_FIELD[swizzle]}  # fmt: skip
    bits = 0
    for name, value in fields.items():
        first, size = DESCRIPTOR[name]
        assert value < 1 << size
        bits |= value << first
    return bits


# ---- "Tensor swizzling modes": 16-byte chunks of eight rows, as the figures number them ----

SWIZZLE_FIGURES = {
    128: ["01234567", "10325476", "23016745", "32107654",
          "45670123", "54761032", "67452301", "76543210"],
    64: ["0123", "0123", "1032", "1032", "2301", "2301", "3210", "3210"],
    32: ["01", "01", "01", "01", "10", "10", "10", "10"],
}  # fmt: skip


def swizzled_offset(offset: np.ndarray, swizzle: int) -> np.ndarray:
    """Where the byte lies that would be at `offset` from a row of the pattern."""
    if swizzle == 0:
        return offset
    figure = np.array([[int(c) for c in row] for row in SWIZZLE_FIGURES[swizzle]])
    row, chunk = offset // swizzle, offset % swizzle // 16
    return row * swizzle + figure[row % 8, chunk] * 16 + offset % 16


# ---- "Strides" and "Canonical Layouts" of wgmma, as CuTe layouts in units of 128 bits ----
# shape : stride of (rows of M or N, K), T elements of 128 bits; L and S are the two offsets.


def k_major(swizzle: int, leading: int, stride: int, row: np.ndarray, k_byte: np.ndarray):
    """((8,m),(T,2k)) : none ((1T,S),(1,L)); 32 ((2T,S),(1,T)); 64 ((4T,S),..); 128 ((8T,S),..)."""
    step = {0: leading, 32: 16, 64: 16, 128: 16}[swizzle]
    rows = row % 8 * max(swizzle, 16) + row // 8 * stride
    return swizzled_offset(rows + k_byte % 16 + k_byte // 16 * step, swizzle)


def mn_major(swizzle: int, leading: int, stride: int, row: np.ndarray, k: np.ndarray):
    """((T,w,m),(8,k)) : 32 ((1,T,L),(2T,S)); 64 ((1,T,L),(4T,S)); 128 ((1,T,L),(8T,S)); w T wide.

    Elements of two bytes, so T = 8.
    """
    rows = row % 8 * 2 + row // 8 % (swizzle // 16) * 16 + row // (swizzle // 2) * leading
    return swizzled_offset(rows + k % 8 * swizzle + k // 8 * stride, swizzle)
