"""Instructions of the host model on numpy arrays."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from tests.build_cache import CSRC
from tests.conformance.build import model_program

SOURCE = Path(__file__).with_name("model.cu")
TYPES = ("float16", "bfloat16", "float8_e4m3", "int8")
OPERAND_BYTES = 64 << 10
MATRIX_BYTES = 4096

# -4 to 4 in each format.
_MAGNITUDES = {
    "float16": (0x0000, 0x3C00, 0x4000, 0x4200, 0x4400),
    "bfloat16": (0x0000, 0x3F80, 0x4000, 0x4040, 0x4080),
    "float8_e4m3": (0x00, 0x38, 0x40, 0x44, 0x48),
}


def element_bytes(kind: str) -> int:
    return 2 if kind in ("float16", "bfloat16") else 1


def stored(kind: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers from -4 to 4 in the format, as bytes or halves."""
    if kind == "int8":
        return values.astype(np.int8).view(np.uint8)
    dtype = np.uint16 if element_bytes(kind) == 2 else np.uint8
    sign = (values < 0).astype(dtype) << (8 * element_bytes(kind) - 1)
    return np.array(_MAGNITUDES[kind], dtype)[np.abs(values)] | sign.astype(dtype)


class Model:
    """The host model over the texts in `csrc`; every call checks that it was accepted."""

    def __init__(self, csrc: Path = CSRC):
        program = model_program(SOURCE, csrc, flags=("-shared", "-fPIC", "-fno-gnu-unique"))
        self._library = ctypes.CDLL(str(program))

    def _call(self, name: str, *arguments) -> None:
        given = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments
        ]
        assert getattr(self._library, f"oracle_{name}")(*given) == 0, name

    def mma(self, kind: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """a, b as stored elements of [32, n]; c of [32, 4] whole numbers; gives d like c."""
        sums = np.int32 if kind == "int8" else np.float32
        d = np.ascontiguousarray(c.astype(sums))
        self._call("mma", TYPES.index(kind), np.ascontiguousarray(a), np.ascontiguousarray(b), d)
        return d.astype(np.int64)

    def load_matrices(self, count: int, transposed: bool, memory: np.ndarray, rows: np.ndarray):
        out = np.zeros((32, 2 * count), np.uint16)
        self._call("load_matrices", count, int(transposed), memory, rows.astype(np.uint32), out)
        return out

    def store_matrices(self, transposed: bool, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        memory = np.zeros(MATRIX_BYTES // 2, np.uint16)
        self._call("store_matrices", int(transposed), memory, rows.astype(np.uint32), values)
        return memory

    def wgmma(self, kind: str, d: np.ndarray, memory: np.ndarray, a, b: int, transposed=(0, 0)):
        """d [128, n / 2] += a b; `a` is a descriptor or the fragments [128, 16 bytes]."""
        sums = np.int32 if kind == "int8" else np.float32
        out = np.ascontiguousarray(d.astype(sums))
        in_registers = isinstance(a, np.ndarray)
        fragments = np.ascontiguousarray(a) if in_registers else np.zeros(1, np.uint32)
        descriptor = 0 if in_registers else a
        assert memory.nbytes == OPERAND_BYTES
        form = (TYPES.index(kind), 2 * d.shape[1], int(in_registers), *transposed)
        descriptors = (ctypes.c_uint64(descriptor), ctypes.c_uint64(b))
        self._call("wgmma", *form, memory, *descriptors, fragments, out)
        return out.astype(np.int64)

    def descriptor(self, leading: int, stride: int, field: int, advance: int) -> tuple[int, int]:
        """(start of the matrix, its descriptor)"""
        start, bits = np.zeros(1, np.uint32), np.zeros(1, np.uint64)
        self._call("descriptor", leading, stride, field, advance, start, bits)
        return int(start[0]), int(bits[0])

    def load_box(self, matrix: np.ndarray, box: tuple[int, int], corner, field: int) -> np.ndarray:
        """Bytes of a box of (rows, columns) whose first element is at (row, column)."""
        (rows, columns), element = matrix.shape, matrix.itemsize
        out = np.zeros(box[0] * box[1] * element, np.uint8)
        aligned = np.zeros(matrix.nbytes + 16, np.uint8)
        aligned = aligned[-aligned.ctypes.data % 16 :][: matrix.nbytes]
        aligned[:] = matrix.view(np.uint8).ravel()
        self._call("load_box", aligned, element, columns, rows, box[1], box[0], corner[1],
                   corner[0], field, out)  # fmt: skip
        return out


@cache
def model() -> Model:
    return Model()
