"""Every wrapper's results on the host model, and the comparison of a device with them."""

import re

import numpy as np
import pytest

from tests.ahead import ahead
from tests.conformance import __main__, device, golden, outputs, statements
from tests.conformance.build import FLAVOURS, device_program, model_program
from tests.conformance.device import compare, is_wrong
from tests.conformance.mistakes import changed_copy
from tests.conformance.outputs import Output, Run
from tests.facts.cubins import find_nvcc
from tests.host_sim.compiler import find_compiler

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler found")


def calls(*files) -> set[str]:
    text = "\n".join(file.read_text() for file in files)
    return set(re.findall(r"\b(\w+)(?:<[^;{}()]*>)?\(", text))


def test_every_wrapper_has_a_case():
    sources = sorted(golden.HERE.glob("*.cuh"))
    assert set(statements.device_functions()) - calls(*sources) == set()


# ---- results on the host model ----


@pytest.fixture(scope="module")
def result() -> Run:
    return outputs.run(model_program())


@needs_compiler
@ahead(model_program)
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
        "model/tensor_box.h", "inside && column >= 0 && column <", "inside && column <",
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
        "model/tensor_box.h", "!(blocks >> target->rank & 1)", "target != &block()",
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
