"""The wrappers' PTX as recorded, and what their asm statements must say."""

import re

import pytest

from tests.ahead import ahead
from tests.build_cache import CSRC
from tests.conformance import golden, statements
from tests.conformance.mistakes import changed_copy
from tests.facts.cubins import ARCHS, find_nvcc
from tests.host_sim.compiler import find_compiler

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
needs_cuda_headers = pytest.mark.skipif(
    statements.toolkit_include() is None or find_compiler() is None,
    reason="cuda.h or a C++ compiler is not installed",
)
FUNCTIONS = statements.device_functions()


def test_every_wrapper_is_recorded():
    assert len(FUNCTIONS) > 80
    kernels = re.findall(r"^(?:WRAPPER|LOAD|STORE|MMA|SHUFFLE|WGMMA_OF_EACH_N)\((\w+)",
                         golden.SOURCE.read_text(), re.M)  # fmt: skip
    names = {name.rpartition("_")[0] if name.startswith("copy_async_") else name
             for name in kernels} | {"copy_async_16"}  # fmt: skip
    assert set(FUNCTIONS) - names == set()


def test_a_new_wrapper_is_seen(tmp_path):
    text = "// Bit i of the result is"
    csrc = changed_copy(
        tmp_path, "ptx/bits.cuh", text, f"LOWBIT_DEVICE uint32_t added() {{ return 1; }}\n{text}"
    )
    assert set(statements.device_functions(csrc)) - set(FUNCTIONS) == {"added"}


# ---- PTX ----


@needs_nvcc
@ahead(golden.current)
def test_ptx_is_what_was_recorded():
    assert golden.current() == golden.RECORD.read_text(), (
        "the PTX of a wrapper has changed; look at it, then python -m tests.conformance --record"
    )


def missing_on(guard: str) -> set[str]:
    """Architectures where asm of this macro must stop the kernel."""
    if "SM89" in guard:
        return {"80"}
    if "SM90A" in guard or "WGMMA" in guard:
        return {*ARCHS} - {"90a"}
    return {"80", "89"} if "SM90" in guard else set()


def sections() -> dict[str, dict[str, list[str]]]:
    """golden.txt as wrapper, architecture, instructions."""
    found: dict[str, dict[str, list[str]]] = {}
    wrapper, archs = "", []
    for line in golden.RECORD.read_text().splitlines():
        if line.startswith("  "):
            for arch in archs:
                found[wrapper].setdefault(arch, []).append(line.strip())
        elif line.startswith(" "):
            archs = line.strip(" :").split()
        else:
            wrapper = line
            found[wrapper] = {}
    return found


@pytest.mark.parametrize("wrapper", sections())
def test_kernels_stop_where_the_instruction_is_missing(wrapper):
    known = [name for name in FUNCTIONS if wrapper.startswith(name)]
    function = max(known, key=len)
    # Those that have no asm of their own call one that has.
    guard = FUNCTIONS["test_mbarrier" if function == "wait_mbarrier" else function]
    for arch, lines in sections()[wrapper].items():
        if arch in missing_on(guard):
            assert lines == ["trap"], arch
        else:
            assert lines != [] and "trap" not in lines, arch


# A wrong order of operands, of results, another instruction, another scope.
PTX_MISTAKES = {
    "selector before the words": (
        "bits.cuh", '"r"(a), "r"(b), "r"(selector)', '"r"(selector), "r"(a), "r"(b)',
        "prmt.b32 r0, a3, a1, a2"),
    "results swapped": (
        "matrix_load.cuh",
        '''x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])''',
        '''x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[1]), "=r"(out[0])''',
        "a0[4] = r0"),
    "row for column": ("tensor_copy.cuh", '[%0, {%2, %3}], [%1];', '[%0, {%3, %2}], [%1];',
                       "[a0, {a3, a2}], [a1]"),
    "signed for unsigned bytes": ("mma.cuh", "s32.s8.s8.s32", "s32.u8.u8.s32", "s32.u8.u8.s32"),
    "release of the block alone": (
        "memory_order.cuh", "st.release.gpu", "st.release.cta", "st.release.cta"),
    "two accumulators swapped": (
        "wgmma_operands.cuh", "c(d[0]), c(d[1]), c(d[2]), c(d[3])\n",
        "c(d[1]), c(d[0]), c(d[2]), c(d[3])\n", "{a0[4], a0[0], a0[8], a0[12]}"),
}  # fmt: skip


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("mistake", PTX_MISTAKES)
def test_a_mistake_in_asm_changes_the_ptx(mistake, tmp_path):
    name, text, changed, line = PTX_MISTAKES[mistake]
    csrc = changed_copy(tmp_path, f"ptx/{name}", text, changed)
    wrong, right = (golden.current(each, ("90a",)) for each in (csrc, CSRC))
    assert line in wrong and line not in right


# ---- asm statements ----


@needs_cuda_headers
def test_asm_is_volatile_and_clobbers_memory():
    found = [each for header in statements.headers() for each in statements.statements(header)]
    assert len(found) == 107  # more of them: see that the check reads the new ones
    assert [mistake for each in found for mistake in each.mistakes()] == []


STATEMENT_MISTAKES = {
    "no clobber": (
        "async_copy.cuh", '("cp.async.commit_group;" ::: "memory")', '("cp.async.commit_group;")',
        'commit_async_copies: asm with cp must clobber "memory"'),
    "not volatile": (
        "memory_order.cuh", 'asm volatile("ld.acquire', 'asm("ld.acquire',
        "load_acquire: asm with ld must be volatile"),
    "unknown": (
        "bits.cuh", '"lop3.b32 %0', '"bfe.u32 %0', "lop3: bfe must stand in one of the sets"),
    "no clobber in a macro": (
        "wgmma.cuh", '"n"(kTransposeB ? 1 : 0) : "memory")\n\n// The statement',
        '"n"(kTransposeB ? 1 : 0))\n\n// The statement',
        'wgmma_int8: asm with wgmma must clobber "memory"'),
}  # fmt: skip


@needs_cuda_headers
@pytest.mark.parametrize("mistake", STATEMENT_MISTAKES)
def test_a_weak_asm_statement_is_told(mistake, tmp_path):
    name, text, changed, sentence = STATEMENT_MISTAKES[mistake]
    csrc = changed_copy(tmp_path, f"ptx/{name}", text, changed)
    found = statements.statements(csrc / "cuda" / "ptx" / name, csrc)
    assert any(mistake.startswith(sentence) for each in found for mistake in each.mistakes())
