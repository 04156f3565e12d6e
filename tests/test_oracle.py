"""The host model's maps against Triton's layouts and tables of the PTX ISA."""

import numpy as np
import pytest

from tests.ahead import ahead
from tests.conformance.mistakes import changed_copy
from tests.host_sim.compiler import find_compiler
from tests.oracle import checks, gluon, isa
from tests.oracle.library import TYPES, Model, model
from tests.oracle.ptx_machine import PtxMachine

pytestmark = [
    pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler found"),
    ahead(model),
]
needs_triton = pytest.mark.skipif(gluon.missing() is not None, reason=str(gluon.missing()))
SOURCES = ["isa", pytest.param("gluon", marks=needs_triton)]
HALVES = ("float16", "bfloat16")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_mma(source, kind):
    checks.check_mma(model(), source, kind)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_ldmatrix(count, transposed):
    checks.check_ldmatrix(model(), count, transposed)


@pytest.mark.parametrize("transposed", [False, True])
def test_stmatrix(transposed):
    checks.check_stmatrix(model(), transposed)


@needs_triton
@pytest.mark.parametrize("operand", ["a", "b"])
def test_ldmatrix_gives_fragments(operand):
    checks.check_ldmatrix_gives_fragments(model(), operand)


@pytest.mark.parametrize("n", [8, 16, 64, 256])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_wgmma_fragments(source, kind, n):
    checks.check_wgmma_fragments(model(), source, kind, n)


@pytest.mark.parametrize("b_swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("a_swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("kind", TYPES)
def test_wgmma_with_k_contiguous(kind, a_swizzle, b_swizzle):
    checks.check_wgmma_operands(model(), kind, 64, (a_swizzle, False), (b_swizzle, False))


@pytest.mark.parametrize("swizzle", [32, 64, 128])
@pytest.mark.parametrize("sides", ["a", "b", "ab"])
@pytest.mark.parametrize("kind", HALVES)
def test_wgmma_with_m_or_n_contiguous(kind, sides, swizzle):
    a, b = ((swizzle, side in sides) for side in "ab")
    checks.check_wgmma_operands(model(), kind, 64, a, b)


@needs_triton
@pytest.mark.parametrize("name", gluon.product_names())
def test_product_as_triton_lays_it_out(name):
    checks.check_triton_product(model(), name)


def test_descriptors():
    checks.check_descriptors(model())


@pytest.mark.parametrize("element", [1, 2, 4])
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_box(swizzle, element):
    checks.check_box(model(), swizzle, element)


@needs_triton
def test_box_is_an_operand_of_triton():
    checks.check_box_is_triton_operand(model())


@needs_triton
def test_the_sources_agree():
    for name in ("mma_a_1", "mma_a_2", "mma_b_1", "mma_b_2", "mma_c", "wgmma_a_1", "wgmma_a_2",
                 "wgmma_d_8", "wgmma_d_256"):  # fmt: skip
        np.testing.assert_array_equal(checks.isa_map(name), gluon.fragment(name), name)


# ---- mistakes ----

WARP, GROUP = "model/warp_matrix.h", "model/warpgroup_matrix.h"
# file, text, what it becomes, check, its arguments
MISTAKES = {
    "a of mma": (WARP, "rows[group + word % 2 * 8]", "rows[group + word / 2 * 8]",
                 "mma", ("isa", "float16")),
    "b of mma": (WARP, "columns[group][first + word", "columns[lane % 8][first + word",
                 "mma", ("isa", "int8")),
    "c of mma": (WARP, "rows[lane / 4 + j / 2 * 8][k] * columns[lane % 4 * 2 + j % 2][k]",
                 "rows[lane / 4 + j % 2 * 8][k] * columns[lane % 4 * 2 + j / 2][k]",
                 "mma", ("isa", "float8_e4m3")),
    "ldmatrix": (WARP, "lanes[matrix * 8 + r])->row[c]", "lanes[r * 4 + matrix])->row[c]",
                 "ldmatrix", (4, False)),
    "ldmatrix transposed": (WARP, "if (transposed) std::swap(r, c);\n      return", "return",
                            "ldmatrix", (2, True)),
    "stmatrix": (WARP, "lanes[m * 8 + r])->row[c]", "lanes[m * 8 + c])->row[r]",
                 "stmatrix", (False,)),
    "a of wgmma": (GROUP, "thread / 32 * 16 + thread % 32 / 4 + word % 2 * 8",
                   "thread / 32 * 16 + thread % 32 / 4 + word / 2 * 8",
                   "wgmma_fragments", ("isa", "float16", 8)),
    "d of wgmma": (GROUP, "j / 4 * 8 + thread % 4 * 2 + j % 2",
                   "j / 4 * 8 + thread % 4 + j % 2 * 4",
                   "wgmma_fragments", ("isa", "int8", 16)),
    "k contiguous, none": (GROUP, "depth / 16 * leading", "depth / 16 * stride",
                           "wgmma_operands", ("int8", 64, (0, False), (128, False))),
    "k contiguous, swizzled": (GROUP, "row % 8 * swizzle_bytes + depth", "row % 8 * 128 + depth",
                               "wgmma_operands", ("int8", 64, (64, False), (64, False))),
    "m contiguous": (GROUP, "row / piece * leading", "row / piece * stride",
                     "wgmma_operands", ("float16", 64, (32, True), (128, False))),
    "swizzle of 64 bytes": ("ptx/swizzle.cuh", "(offset >> 3 & (bytes - 16))",
                            "(offset / bytes % (bytes / 16) * 16)", "box", (64, 2)),
    "swizzle of 32 bytes": ("ptx/swizzle.cuh", "(offset >> 3 & (bytes - 16))",
                            "(offset >> 2 & (bytes - 16))", "box", (32, 1)),
    "stride of a descriptor": ("ptx/wgmma.cuh", "sixteenths(stride) << 32",
                               "sixteenths(stride) << 30",
                               "descriptors", ()),
    "mode of a descriptor": ("ptx/wgmma.cuh", "(swizzle) << 62", "(swizzle) << 61",
                             "descriptors", ()),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_map_is_caught(mistake, tmp_path):
    name, text, changed, check, arguments = MISTAKES[mistake]
    run = getattr(checks, f"check_{check}")
    run(model(), *arguments)
    copy = changed_copy(tmp_path, name, text, changed)
    with pytest.raises(AssertionError):
        run(Model(copy), *arguments)


def test_a_wrong_table_is_caught(monkeypatch):
    """The checks look at all of each table: any two places exchanged are found."""
    right = {name: checks.isa_map(name) for name in ("mma_a_2", "mma_b_2", "mma_c")}
    for wrong in right:
        row, column = (array.copy() for array in right[wrong])
        row[3, 1], row[7, 1], column[3, 1], column[7, 1] = (
            row[7, 1], row[3, 1], column[7, 1], column[3, 1])  # fmt: skip
        tables = right | {wrong: (row, column)}
        monkeypatch.setitem(checks.SOURCES, "wrong", tables.__getitem__)
        with pytest.raises(AssertionError):
            checks.check_mma(model(), "wrong", "float16")
    monkeypatch.setitem(isa.SWIZZLE_FIGURES, 64, isa.SWIZZLE_FIGURES[64][1:] + ["0123"])
    with pytest.raises(AssertionError):
        checks.check_box(model(), 64, 2)


def test_the_ptx_machine():
    machine = PtxMachine(
        ".entry k()\n{\nmov.u32 %r1, %tid.x;\nshl.b32 %r2, %r1, 1;\nmov.b32 %r3, global_smem;\n"
        "add.s32 %r4, %r3, %r2;\nxor.b32 %r5, %r1, 3;\nst.shared.b16 [%r4+8], %r5;\n"
        "bfe.s32 %r7, %r1, 5, 2;\nand.b32 %r8, %r7, 144;\nst.shared.b16 [%r4], %r8;\n"
        "ld.global.f32 %r6, [%rd1];\n}\n"
    )
    (addresses, values), (_, signs) = machine.stores
    np.testing.assert_array_equal(np.unique(signs), [0, 144])
    np.testing.assert_array_equal(signs == 144, np.arange(128) // 32 >= 2)
    np.testing.assert_array_equal(addresses, 2 * np.arange(128) + 8)
    np.testing.assert_array_equal(values, np.arange(128) ^ 3)
    with pytest.raises(ValueError, match="%r6 must be a whole number"):
        PtxMachine(".entry k()\n{\nld.global.f32 %r6, [%rd1];\nst.shared.b16 [%r6], %r6;\n}")
