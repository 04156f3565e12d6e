"""The wrappers on any machine: their PTX, their asm, their results on the host model."""

import re
import shutil

import numpy as np
import pytest

from tests.conformance import __main__, device, golden, outputs, statements
from tests.conformance.build import FLAVOURS, device_program, find_compiler, model_program
from tests.conformance.device import compare, is_wrong
from tests.conformance.outputs import Output, Run
from tests.facts.cubins import ARCHS, CSRC, find_nvcc

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler found")
needs_cuda_headers = pytest.mark.skipif(
    statements.toolkit_include() is None or find_compiler() is None,
    reason="cuda.h or a C++ compiler is not installed",
)
FUNCTIONS = statements.device_functions()


def changed_copy(folder, name: str, text: str, changed: str):
    """A copy of csrc in which the one place of `text` is changed."""
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy, ignore=shutil.ignore_patterns("cpu"))
    file = copy / "cuda" / name
    original = file.read_text()
    assert original.count(text) == 1, "the text to change must stand there once"
    file.write_text(original.replace(text, changed))
    return copy


# ---- every wrapper has a kernel ----


def calls(*files) -> set[str]:
    text = "\n".join(file.read_text() for file in files)
    return set(re.findall(r"\b(\w+)(?:<[^;{}()]*>)?\(", text))


def test_every_wrapper_is_recorded():
    assert len(FUNCTIONS) > 80
    kernels = re.findall(r"^(?:WRAPPER|LOAD|STORE|MMA|SHUFFLE|WGMMA_OF_EACH_N)\((\w+)",
                         golden.SOURCE.read_text(), re.M)  # fmt: skip
    names = {name.rpartition("_")[0] if name.startswith("copy_async_") else name
             for name in kernels} | {"copy_async_16"}  # fmt: skip
    assert set(FUNCTIONS) - names == set()


def test_every_wrapper_has_a_case():
    sources = sorted(golden.HERE.glob("*.cuh"))
    assert set(FUNCTIONS) - calls(*sources) == set()
    assert "no_such_wrapper" not in calls(*sources)


# ---- PTX ----


@needs_nvcc
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
    assert len(found) == 101  # more of them: see that the check reads the new ones
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


# ---- results on the host model ----


@pytest.fixture(scope="module")
def result() -> Run:
    return outputs.run(model_program())


@needs_compiler
def test_results_are_what_was_recorded(result):
    assert outputs.changes(result) == []
    assert len(result.outputs) == len(outputs.recorded()) >= 230


@needs_compiler
def test_results_do_not_depend_on_the_order_of_threads():
    for seed in range(1, 9):
        assert outputs.changes(outputs.run(model_program(), seed)) == []


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("flavour", [name for name in FLAVOURS if name != "plain"])
def test_no_sanitizer_objects(flavour, monkeypatch):
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    assert outputs.changes(outputs.run(model_program(flavour=flavour), 1, seconds=300)) == []


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80", "90a", "120a"])
def test_the_program_compiles_for_devices(arch):
    """Also: ptxas neither holds wgmma up nor ignores register budgets."""
    assert device_program(arch).is_file()


MMA = "model/warp_matrix.h"
# file, text, what it becomes, a case that must notice. The first ones are tried by default.
MODEL_MISTAKES = {
    "rows of a swapped": (
        MMA, "rows[group + word % 2 * 8]", "rows[group + word / 2 * 8]", "mma_float16"),
    "wrong bits of the swizzle": (
        "ptx/swizzle.cuh", "offset >> 3", "offset >> 4", "box_load_2d_2B_rows_of_128_at_2_0"),
    "columns of b in the order of rows": (
        MMA, "columns[group][first", "columns[lane % 4 * 2 + group / 4][first", "mma_int8"),
    "second half of k first": (
        MMA, "first + word * kDepth / 2", "first + (1 - word) * kDepth / 2", "mma_bfloat16"),
    "accumulators transposed": (
        MMA, "rows[lane / 4 + j / 2 * 8][k]", "rows[lane / 4 + j % 2 * 8][k]", "mma_float8_e4m3"),
    "ldmatrix transposed never": (
        MMA, "if (transposed) std::swap(r, c);\n      return", "return", "load_matrix_transposed"),
    "stmatrix halves swapped": (
        MMA, "pair >> 16 * half", "pair >> 16 * (1 - half)", "store_matrix"),
    "rows of wgmma by thread": (
        "model/warpgroup_matrix.h", "thread / 32 * 16 + thread % 32 / 4 + j / 2 % 2 * 8",
        "thread / 32 * 16 + thread % 16 + j / 2 % 2 * 8 % 9", "wgmma_int8_n8_a_128k_b_128k"),
    "fragments of a in other words": (
        "model/warpgroup_matrix.h", "thread % 32 / 4 + word % 2 * 8",
        "thread % 32 / 4 + word / 2 * 8", "wgmma_float16_n16_a_registers_b_128k"),
    "leading for stride": (
        "model/warpgroup_matrix.h", "row / 8 * stride + row % 8 * 16 + depth / 16 * leading",
        "row / 8 * leading + row % 8 * 16 + depth / 16 * stride", "wgmma_int8_n16_a_0k_b_0k"),
    "pieces of mn-major by stride": (
        "model/warpgroup_matrix.h", "row / piece * leading + row % piece * 2 + k / 8 * stride",
        "row / piece * stride + row % piece * 2 + k / 8 * leading",
        "wgmma_float16_n64_a_64mn_b_128k"),
    "first product adds": (
        "model/warpgroup_matrix.h", "if (p.form.adds) std::memcpy", "std::memcpy",
        "wgmma_float16_n8_a_128k_b_128k"),
    "box wraps at the left": (
        "model/copy_engine.h", "inside && column >= 0 && column <", "inside && column <",
        "box_load_2d_1B_rows_of_48_at_-12_-3"),
    "shuffle up without segments": (
        "ptx/warp.cuh", "lane % width < distance", "lane < distance", "shuffle_up"),
    "cp.async without zeros": (
        "model/async_copy.h", "std::memset(copy.dst + copy.source_bytes, 0",
        "std::memset(copy.dst + copy.source_bytes, 1", "copy_async_parts"),
    "another NaN": ("conversions.cuh", """  if (value != value) return 0x7fff;
  const auto rounded""", "  const auto rounded", "floats_to_halves"),
    "barrier without the lanes that lack": (
        "model/barriers.h", "1 + (32 - size % 32) % 32", "1", "sync_block_40"),
    "sign of prmt ignored": ("ptx/bits.cuh", "if (choice & 8)", "if (false)", "permute_bytes"),
    "e4m3 bias": ("conversions.cuh", "0x1p120f", "0x1p121f", "mma_float8_e4m3"),
    "no multicast": (
        "model/copy_engine.h", "!(blocks >> target->rank & 1)", "target != &block()",
        "box_multicast"),
}  # fmt: skip
_SLOW = list(MODEL_MISTAKES)[2:]


@needs_compiler
@pytest.mark.parametrize(
    "mistake",
    [pytest.param(m, marks=[pytest.mark.slow] if m in _SLOW else []) for m in MODEL_MISTAKES],
)
def test_a_mistake_in_the_model_is_noticed(mistake, tmp_path):
    name, text, changed, case = MODEL_MISTAKES[mistake]
    csrc = changed_copy(tmp_path, name, text, changed)
    result = outputs.run(model_program(csrc=csrc, flags=("-O0",)), seconds=20)
    assert any(sentence.startswith((f"{case} must be", f"{case}:"))
               for sentence in outputs.changes(result))  # fmt: skip


# ---- the comparison with a device ----


def floats(*values) -> np.ndarray:
    return np.array(values, np.float32).view("<u4")


def test_the_comparison_tells_differences():
    nan = float("nan")
    expected = {
        "bits": Output("word", 0.0, np.array([1, 2, 3], "<u4")),
        "exact": Output("float", 0.0, floats(1.0, nan, -0.0, float("inf"))),
        "near": Output("float", 0.25, floats(1.0, 2.0)),
        "lacking": Output("word", 0.0, np.array([1], "<u4")),
        "hangs": Output("word", 0.0, np.array([1], "<u4")),
    }
    got = {
        "bits": Output("word", 0.0, np.array([1, 2, 3], "<u4")),
        "exact": Output("float", 0.0, floats(1.0, nan, 0.0, float("inf"))),
        "near": Output("float", 0.25, floats(1.25, 1.75)),
    }
    verdicts = compare(Run(expected, [], {}), Run(got, ["lacking"], {"hangs": "not done"}))
    assert verdicts == {
        "bits": "same",
        "exact": "same",
        "near": "within 0.25",
        "lacking": "skipped: the device lacks its instructions",
        "hangs": "FAILED: not done",
    }
    assert [name for name, verdict in verdicts.items() if is_wrong(verdict)] == ["hangs"]
    wrong = {
        "bits": np.array([1, 7, 3], "<u4"),
        "exact": floats(1.0, 1.0, 0.0, -float("inf")),
        "near": floats(1.0, nan),
        "lacking": np.array([1, 1], "<u4"),
        "hangs": np.array([2], "<u4"),
    }
    run = Run({name: Output("word", 0.0, words) for name, words in wrong.items()}, [], {})
    verdicts = compare(Run(expected, [], {}), run)
    assert all(map(is_wrong, verdicts.values()))
    assert verdicts["bits"] == "DIFFERS in 1 of 3 words; word 1 must be 2, got 7"
    assert verdicts["exact"].startswith("DIFFERS in 2 of 4 words")


@needs_compiler
def test_the_command_for_a_device(monkeypatch, capsys, tmp_path):
    """With the model in the place of a GPU; one that is wrong, then none at all."""
    monkeypatch.setattr(device, "device_program", lambda arch: model_program())
    monkeypatch.setattr(__main__, "device_arch", lambda: "90a")
    assert __main__.compare_device() == 0
    said = capsys.readouterr().out
    cases = len(outputs.recorded())
    assert said.endswith(f"sm_90a: {cases} cases, 0 wrong\n") and said.count("\n") == cases + 1

    name, text, changed, case = MODEL_MISTAKES["rows of a swapped"]
    wrong = model_program(csrc=changed_copy(tmp_path, name, text, changed), flags=("-O0",))
    monkeypatch.setattr(device, "device_program", lambda arch: wrong)
    assert __main__.compare_device() == 1
    assert re.search(rf"^{case} +DIFFERS in \d+ of 1024 words; word \d+ must be",
                     capsys.readouterr().out, re.M)  # fmt: skip

    monkeypatch.setattr(__main__, "device_arch", lambda: None)
    assert __main__.compare_device() == 2


def test_a_case_that_fails_or_hangs_is_named(tmp_path):
    """The program goes on behind it."""
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        'if [ $2 = 0 ]; then echo "0 fine"; printf "fine word 0 1\\nabcd" > $1\n'
        '  echo "1 wrong"; echo "the kernel must end, got trap" >&2; exit 1; fi\n'
        'if [ $2 = 2 ]; then echo "2 hangs"; : > $1; exec sleep 9; fi\n'
        'echo "3 lacking skipped"; : > $1\n'
    )
    program.chmod(0o755)
    result = outputs.run(program, seconds=1)
    assert list(result.outputs) == ["fine"] and result.skipped == ["lacking"]
    assert result.failed == {
        "wrong": "the kernel must end, got trap",
        "hangs": "not done after 1 s",
    }
