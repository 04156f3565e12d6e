"""The host model against maps of others. Each check raises AssertionError where they differ."""

from collections.abc import Callable

import numpy as np

from tests.oracle import gluon, isa
from tests.oracle.library import MATRIX_BYTES, OPERAND_BYTES, Model, element_bytes, stored

Map = tuple[np.ndarray, np.ndarray]


def isa_map(name: str) -> Map:
    """By names like mma_a_2: operand and bytes of an element, or N."""
    instruction, operand, *size = name.split("_")
    return getattr(isa, f"{instruction}_{operand}")(*map(int, size))


SOURCES: dict[str, Callable[[str], Map]] = {"isa": isa_map, "gluon": gluon.fragment}


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape)


def check_mma(model: Model, source: str, kind: str) -> None:
    """Random fragments multiply to the product of the matrices that they are fragments of."""
    maps, size = SOURCES[source], element_bytes(kind)
    (a_at, b_at), c_at = (maps(f"mma_{operand}_{size}") for operand in "ab"), maps("mma_c")
    a, b, c = _random(1, 16, 32 // size), _random(2, 32 // size, 8), _random(3, 16, 8)
    d = model.mma(kind, stored(kind, a[a_at]), stored(kind, b[b_at]), c[c_at])
    np.testing.assert_array_equal(d, (a @ b + c)[c_at])


def _rows_of_matrices(rng: np.random.Generator) -> np.ndarray:
    """Bytes of 32 rows in any order, none twice."""
    return 16 * rng.permutation(MATRIX_BYTES // 16)[:32]


def check_ldmatrix(model: Model, count: int, transposed: bool) -> None:
    rng = np.random.default_rng(4)
    memory = rng.integers(0, 1 << 16, MATRIX_BYTES // 2).astype(np.uint16)
    rows = _rows_of_matrices(rng)
    matrix, row, column = isa.ldmatrix(count, transposed)
    expected = memory[rows[8 * matrix + row] // 2 + column]
    np.testing.assert_array_equal(model.load_matrices(count, transposed, memory, rows), expected)


def check_stmatrix(model: Model, transposed: bool) -> None:
    rng = np.random.default_rng(5)
    rows, values = _rows_of_matrices(rng), rng.integers(1, 1 << 16, (32, 8)).astype(np.uint16)
    matrix, row, column = isa.ldmatrix(4, transposed)
    expected = np.zeros(MATRIX_BYTES // 2, np.uint16)
    expected[rows[8 * matrix + row] // 2 + column] = values
    np.testing.assert_array_equal(model.store_matrices(transposed, rows, values), expected)


def check_ldmatrix_gives_fragments(model: Model, operand: str) -> None:
    """Four or two 8x8 matrices are operands of mma as Gluon has them; b from rows of K."""
    row, column = gluon.fragment(f"mma_{operand}_2")
    lanes, memory = np.arange(32), np.arange(MATRIX_BYTES // 2, dtype=np.uint16)
    if operand == "a":  # 16 x 16: right of the first two matrices those of the next K
        rows = lanes % 16 * 32 + lanes // 16 * 16
        got = model.load_matrices(4, False, memory, rows)
        np.testing.assert_array_equal(got, row * 16 + column)
    else:  # 16 x 8
        got = model.load_matrices(2, True, memory, lanes % 16 * 16)
        np.testing.assert_array_equal(got, row * 8 + column)


# ---- wgmma ----


def _lay_out(memory: np.ndarray, kind: str, start: int, places: np.ndarray, values: np.ndarray):
    memory.view(np.uint16 if element_bytes(kind) == 2 else np.uint8)[
        (start + places) // element_bytes(kind)
    ] = stored(kind, values)


def check_wgmma_fragments(model: Model, source: str, kind: str, n: int) -> None:
    """a from registers, b without swizzle, where its place is simplest."""
    maps, size = SOURCES[source], element_bytes(kind)
    depth = 32 // size
    a_at, d_at = maps(f"wgmma_a_{size}"), maps(f"wgmma_d_{n}")
    a, b, c = _random(6, 64, depth), _random(7, depth, n), _random(8, 64, n)
    memory = np.zeros(OPERAND_BYTES, np.uint8)
    k, column = np.meshgrid(np.arange(depth), np.arange(n), indexing="ij")
    _lay_out(memory, kind, 0, isa.k_major(0, 128, 256, column, k * size), b)
    descriptor = isa.encode_descriptor(0, 128, 256, 0)
    d = model.wgmma(kind, c[d_at], memory, stored(kind, a[a_at]), descriptor)
    np.testing.assert_array_equal(d, (a @ b + c)[d_at])


def check_wgmma_operands(model: Model, kind: str, n: int, a_place: tuple, b_place: tuple) -> None:
    """Places are (swizzle, whether M or N is contiguous), laid out by the canonical layouts."""
    size, at = element_bytes(kind), isa.wgmma_d(n)
    depth = 32 // size
    a, b, c = _random(9, 64, depth), _random(10, n, depth), _random(11, 64, n)
    memory = np.zeros(OPERAND_BYTES, np.uint8)
    descriptors = []
    for matrix, (swizzle, mn_major), start in ((a, a_place, 0), (b, b_place, OPERAND_BYTES // 2)):
        row, k = np.meshgrid(*map(np.arange, matrix.shape), indexing="ij")
        stride = 8 * max(swizzle, 16) + (1024 if not mn_major else 0)
        leading = 16 * swizzle + 2048 if mn_major else 128 + 1024 * 12
        if swizzle == 0:
            stride, leading = 256 + 128, 128 + 256 * 40
        if mn_major:
            places = isa.mn_major(swizzle, leading, stride, row, k)
        else:
            places = isa.k_major(swizzle, leading, stride, row, k * size)
        _lay_out(memory, kind, start, places, matrix)
        descriptors.append(isa.encode_descriptor(start, leading, stride, swizzle))
    transposed = int(a_place[1]), int(b_place[1])
    d = model.wgmma(kind, c[at], memory, *descriptors, transposed)
    np.testing.assert_array_equal(d, (a @ b.T + c)[at])


def check_triton_product(model: Model, name: str) -> None:
    """Triton's layout of shared memory, its descriptors and its accumulators, on the model."""
    operands = gluon.operands(name, OPERAND_BYTES // 2)
    a, b = _random(12, 64, 64), _random(13, 64, 64)
    numbers = operands.numbers
    values = np.concatenate([a.ravel(), b.ravel(), [0]])[numbers]  # -1 names the zero
    assert len(np.unique(numbers)) == a.size + b.size + 1
    memory = stored("float16", values).view(np.uint8)
    at = gluon.fragment("wgmma_d_64")
    d = np.zeros(at[0].shape, np.int64)
    for a_descriptor, b_descriptor, transposed in operands.products:
        d = model.wgmma("float16", d, memory, a_descriptor, b_descriptor, transposed)
    np.testing.assert_array_equal(d, (a @ b)[at])


# ---- descriptors and swizzles ----


def check_descriptors(model: Model) -> None:
    rng = np.random.default_rng(14)
    for swizzle, field in isa.SWIZZLE_FIELD.items():
        for _ in range(20):
            leading, stride = (16 * int(rng.integers(0, 1 << 14)) for _ in range(2))
            advance = 32 * int(rng.integers(0, 4))
            start, bits = model.descriptor(leading, stride, field, advance)
            assert bits == isa.encode_descriptor(start + advance, leading, stride, swizzle)


def check_box(model: Model, swizzle: int, element: int) -> None:
    """Rows of a box lie as the figures of the swizzling modes show them."""
    width = (swizzle or 64) // element
    matrix = np.random.default_rng(15).integers(0, 1 << 8 * element, (40, 2 * width))
    matrix = matrix.astype(f"u{element}")
    box = model.load_box(matrix, (32, width), (5, width), isa.SWIZZLE_FIELD[swizzle])
    rows = np.ascontiguousarray(matrix[5:37, width:]).view(np.uint8).ravel()
    expected = np.empty_like(rows)
    expected[isa.swizzled_offset(np.arange(rows.size), swizzle)] = rows
    np.testing.assert_array_equal(box, expected)


def check_box_is_triton_operand(model: Model) -> None:
    """A matrix of 64 float16 columns as the copy engine brings it is one as Triton writes it."""
    numbers = gluon.operands("128k_128n", OPERAND_BYTES // 2).numbers
    matrix = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    box = model.load_box(matrix, (64, 64), (0, 0), isa.SWIZZLE_FIELD[128])
    np.testing.assert_array_equal(box.view(np.uint16), numbers[: 64 * 64])
