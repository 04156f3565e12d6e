"""The CUDA examples on the host model: values against torch, bounds, order, and seeded mistakes."""

import re
import shutil
import subprocess
import sys

import pytest
import torch

from tests.facts.cubins import find_nvcc
from tests.facts.sass import missing_tools
from tests.host_sim import builder
from tests.host_sim.runner import run

PROGRAMS = ("check_vector_scale", "check_tiled_gemm", "check_tiled_gemm_sm90")
SEEDS = {"plain": 120, "asan": 20, "tsan": 3}
GEMMS = ("tiled_gemm", "tiled_gemm_sm90")


@pytest.fixture(scope="module")
def ops():
    torch.ops.load_library(builder.build_examples())
    return torch.ops.lowbit_examples


# ---- through torch ----


@pytest.mark.parametrize("count", [0, 1, 7, 8, 4099])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_vector_scale(ops, dtype, count):
    x = torch.randn(count + 3).to(dtype)
    for shift in range(3):
        out = torch.full((count + 3,), 77.0, dtype=dtype)
        ops.vector_scale(x[shift : shift + count], 0.3, out[1 : 1 + count])
        expected = (x[shift : shift + count].float() * torch.tensor(0.3)).to(dtype)
        assert torch.equal(out[1 : 1 + count], expected)
        assert out[0] == 77 and (out[1 + count :] == 77).all()


def halves(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns).half()


@pytest.mark.parametrize("shape", [(1, 1, 8), (130, 70, 264), (65, 300, 40), (5, 257, 1024)])
@pytest.mark.parametrize("gemm", GEMMS)
def test_tiled_gemm(ops, gemm, shape):
    """Against fp64; the bound: fp32 sums in any order, then one rounding to fp16."""
    m, n, k = shape
    a, b, c = halves(m, k), halves(n, k), torch.empty(m, n, dtype=torch.float16)
    getattr(ops, gemm)(a, b, c)
    exact = a.double() @ b.double().T
    sums = (a.double().abs() @ b.double().abs().T) * k * 2**-24
    assert ((c.double() - exact).abs() <= sums + exact.abs() * 2**-11 + 2**-25).all()


@pytest.mark.parametrize("gemm", GEMMS)
def test_infinities_and_nan_stay_in_their_rows(ops, gemm):
    a, b = halves(70, 48), halves(90, 48)
    a[3, 5], a[64, 47], b[89, 0] = float("inf"), float("nan"), float("-inf")
    c = torch.empty(70, 90, dtype=torch.float16)
    getattr(ops, gemm)(a, b, c)
    expected = (a.float() @ b.float().T).half()
    assert torch.equal(c.isnan(), expected.isnan())
    assert torch.equal(c.isinf(), expected.isinf())


@pytest.mark.parametrize("gemm", GEMMS)
def test_parts_of_larger_tensors(ops, gemm):
    a, b = halves(40, 64)[3:33, 8:48], halves(80, 96)[::2, 16:56]
    whole = torch.full((30, 50), 77.0, dtype=torch.float16)
    getattr(ops, gemm)(a, b, whole[:, 5:45])
    torch.testing.assert_close(whole[:, 5:45], a @ b.T, rtol=2e-3, atol=2e-3)
    assert (whole[:, :5] == 77).all() and (whole[:, 45:] == 77).all()


def test_empty_extents(ops):
    for gemm in GEMMS:
        getattr(ops, gemm)(halves(0, 8), halves(5, 8), halves(0, 5))
        getattr(ops, gemm)(halves(5, 8), halves(0, 8), halves(5, 0))
    c = halves(5, 6)
    ops.tiled_gemm(halves(5, 0), halves(6, 0), c)
    assert (c == 0).all()


REFUSALS = {
    "a must be float16, got float32": {"a": lambda t: t.float()},
    "a must have a multiple of 8 columns, got 15; pad both operands with zeros": {
        "a": lambda t: t[:, :15]
    },
    "b must have a multiple of 8 columns": {"b": lambda t: t[:, :15]},
    "b must have as many columns as a, 16, got 8": {"b": lambda t: t[:, :8]},
    "a must have rows a multiple of 8 elements apart, got 20": {
        "a": lambda t: torch.zeros(4, 20).half()[:, :16]
    },
    "a must start on 16 bytes, got 2": {"a": lambda t: torch.zeros(4, 24).half()[:, 1:17]},
    "b must have unit stride": {"b": lambda t: torch.zeros(16, 6).half().T},
    "b must have 2 dimensions, got 1": {"b": lambda t: t[0]},
    "c must have shape [4, 6], got [4, 5]": {"c": lambda t: t[:, :5]},
    "c must have rows that do not overlap": {"c": lambda t: t[:1].expand(4, 6)},
    "c must be float16, got bfloat16": {"c": lambda t: t.bfloat16()},
}


@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusals(ops, sentence, gemm):
    call = {"a": halves(4, 16), "b": halves(6, 16), "c": halves(4, 6)}
    for name, change in REFUSALS[sentence].items():
        call[name] = change(call[name])
    with pytest.raises(ValueError, match=re.escape(f"{gemm}: {sentence}")):
        getattr(ops, gemm).default(*call.values())


# ---- bounds, order and seeded mistakes, in programs without torch ----


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("flavour", builder.FLAVOURS)
def test_random_cases(flavour, program):
    done = run(builder.build_program(program, flavour), 1, SEEDS[flavour])
    assert done.returncode == 0, done.stdout + done.stderr


WRONG, OVERRUN, RACE = "wrong value", "AddressSanitizer: heap-", "data race"
MISALIGNED, DEADLOCK = "misaligned address", "deadlock"
LEFT_OVER = "before it ends, got some in flight"
SCALE, SHARED_TEXT, CONFIG = "vector_scale.cuh", "gemm_operands.cuh", "config.h"
SM80, SM90 = "tiled_gemm.cuh", "tiled_gemm_sm90.cuh"

# program: {mistake: (file, text, what it becomes, the build that must notice, its words)}
MISTAKES = {
    "check_vector_scale": {
        "packs off 16 bytes": (CONFIG, "packed = alike &&", "packed = (alike || true) &&", "plain",
            "must be aligned to 16 bytes"),
        "one pack too many": (CONFIG, "/ per_pack : 0", "/ per_pack + 1 : 0", "asan", OVERRUN),
        "head left out": (CONFIG, "packed ? to_boundary : 0;", "0;", "plain",
            "must be aligned to 16 bytes"),
        "singles run on": (SCALE, "single < c.singles", "single <= c.singles", "asan", OVERRUN),
        "singles behind the packs from the start": (SCALE, "single < c.head ? single : single",
            "single", "plain", WRONG),
        "step of a block": (SCALE, "int64_t{grid_size()} * block_size()",
            "int64_t{grid_size()} * 32", "tsan", RACE),
        "step too wide": (SCALE, "int64_t{grid_size()} * block_size()",
            "int64_t{grid_size() + 1} * block_size()", "plain", WRONG),
        "halves of a word exchanged": (SCALE,
            "{mul_rn(to_float(word), s), mul_rn(to_float(word >> 16), s)}",
            "{mul_rn(to_float(word >> 16), s), mul_rn(to_float(word), s)}", "plain", WRONG),
    },
    "check_tiled_gemm": {
        "no wait for copies": (SM80, "wait_async_copies<Tile::kStages - 2>();", "", "plain", WRONG),
        "wait for a group too few": (SM80, "wait_async_copies<Tile::kStages - 2>",
            "wait_async_copies<Tile::kStages - 1>", "plain", WRONG),
        "no barrier": (SM80, "    sync_block();\n", "", "tsan", RACE),
        "copies before the barrier": (SM80,
            "sync_block();\n    copy_step(k_block + Tile::kStages - 1);",
            "copy_step(k_block + Tile::kStages - 1);\n    sync_block();", "tsan", RACE),
        "no empty group behind the last": (SM80, "    commit_async_copies();\n  };",
            "    if (k_block < c.k_blocks) commit_async_copies();\n  };", "plain", WRONG),
        "no wait at the end": (SM80, "wait_async_copies<0>();", "", "plain", LEFT_OVER),
        "a step too far ahead": (SM80, "copy_step(k_block + Tile::kStages - 1)",
            "copy_step(k_block + Tile::kStages)", "plain", WRONG),
        "rows read without the swizzle": (SM80,
            "piece_offset<Tile>(lane % 16, piece + lane / 16)",
            "lane % 16 * Tile::kRowBytes + (piece + lane / 16) * 16", "plain", WRONG),
        "pieces of a fragment exchanged": (SM80, "(row, piece + lane / 8 % 2)",
            "(row, piece + 1 - lane / 8 % 2)", "plain", WRONG),
        "words of two fragments mixed": (SM80, "out[j][1] = words[1]", "out[j][1] = words[2]",
            "plain", WRONG),
        "sums of rows r and r + 8 exchanged": (SM80, "d[2], d[3]", "d[0], d[1]", "plain", WRONG),
        "rows read past M and N": (SM80, "row_ + i * kRowStep < rows_ &&", "", "asan", OVERRUN),
        "columns read past K": (SM80, "&& column < k_", "", "plain", WRONG),
        "a piece cut short": (SM80, "inside ? 16 : 0", "inside ? 8 : 0", "plain", WRONG),
        "stored past M": (SHARED_TEXT, "row >= p.m || ", "", "asan", OVERRUN),
        "stored past N": (SHARED_TEXT, "column + 1 < p.n", "true", "plain", WRONG),
        "pairs stored off 4 bytes": (CONFIG, "p.c_address % 4 == 0 &&", "", "asan", MISALIGNED),
        "too little shared memory": (CONFIG, "kStages * (kStageBytesA + kStageBytesB);",
            "(kStages - 1) * (kStageBytesA + kStageBytesB);", "plain",
            "shared memory must be at least"),
        "tiles of the last strip left out": (CONFIG, "first + place % rows", "place % rows",
            "plain", WRONG),
    },
    "check_tiled_gemm_sm90": {
        "full not waited for": (SM90, "wait_mbarrier(ring.full + at.stage, at.parity);", "",
            "plain", WRONG),
        "empty not waited for": (SM90, "wait_mbarrier(ring.empty + at.stage, at.parity ^ 1);", "",
            "tsan", RACE),
        "parity of empty not turned": (SM90, "at.parity ^ 1);", "at.parity);", "plain", DEADLOCK),
        "parity never turns": (SM90, "parity ^= 1;", "", "plain", "must not exceed those"),
        "bytes of B not announced": (SM90, "Tile::kStageBytesA + Tile::kStageBytesB);",
            "Tile::kStageBytesA);", "plain", DEADLOCK),
        "16 bytes too many announced": (SM90, "Tile::kStageBytesA + Tile::kStageBytesB);",
            "Tile::kStageBytesA + Tile::kStageBytesB + 16);", "plain", DEADLOCK),
        "arrivals of half the warps": (SM90, "4 * Tile::kConsumers)", "2 * Tile::kConsumers)",
            "tsan", RACE),
        "arrivals of more warps than there are": (SM90, "4 * Tile::kConsumers)",
            "4 * Tile::kConsumers + 1)", "plain", DEADLOCK),
        "stage given back while it is read": (SM90, "ring.empty + stage_before",
            "ring.empty + (stage_before + 1) % Tile::kStages", "tsan", RACE),
        "products in flight not waited for": (SM90, "    wait_wgmma<1>();\n", "", "tsan", RACE),
        "sums stored before the last products": (SM90, "  wait_wgmma(sums);\n", "", "plain",
            LEFT_OVER),
        "no fence before the products": (SM90, "fence_wgmma();", ";", "plain",
            "wgmma_fence must stand"),
        "products not committed": (SM90, "commit_wgmma();", "", "plain", LEFT_OVER),
        "descriptor's stride of four rows": (SM90, "8 * Tile::kRowBytes, kUnused",
            "4 * Tile::kRowBytes, kUnused", "plain", WRONG),
        "B read with half the swizzle": (SM90,
            "matrix_descriptor(b, kUnused, kEightRows, Swizzle::k128Bytes)",
            "matrix_descriptor(b, kUnused, kEightRows, Swizzle::k64Bytes)", "plain", WRONG),
        "copied without the swizzle": (SM90, "spec.swizzle = Swizzle::k128Bytes",
            "spec.swizzle = Swizzle::kNone", "plain", WRONG),
        "K of A advanced by half a product": (SM90, "advance_descriptor(rows, bytes)",
            "advance_descriptor(rows, bytes / 2)", "plain", WRONG),
        "the first product adds": (SM90, "adds || bytes > 0", "true", "plain", WRONG),
        "only the first product of a stage adds": (SM90, "adds || bytes > 0", "adds", "plain",
            WRONG),
        "mbarriers not shown to the threads": (SM90, "    sync_block();  // and", "    // and",
            "tsan", RACE),
        "mbarriers not shown to the copy engine": (SM90, "fence_mbarrier_init();", "", "plain",
            "fence_mbarrier_init must stand"),
        "rows of A for B": (SM90, "map_b, column, tile_column,", "map_b, column, tile_row,",
            "plain", WRONG),
        "ring off the period of the swizzle": (SM90,
            "shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesB, 1024)",
            "shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesB, 512)", "plain",
            "must be aligned to 1024 bytes"),
        "rows of another warp": (SM90, "warp_index() % 4 * 16", "warp_index() % 4 * 8", "plain",
            WRONG),
        "stored past M": (SHARED_TEXT, "row >= p.m || ", "", "asan", OVERRUN),
    },
}  # fmt: skip


@pytest.mark.slow
def test_commands_of_the_guide():
    guide = (builder.ROOT / "docs" / "verification.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        if "tests.facts" in block and (find_nvcc() is None or missing_tools()):
            continue
        command = block.replace(".venv/bin/python", sys.executable)
        done = subprocess.run(
            ["bash", "-ec", command], cwd=builder.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "program, mistake",
    [(program, mistake) for program in PROGRAMS for mistake in MISTAKES[program]],
)
def test_seeded_mistake_is_caught(program, mistake, tmp_path):
    name, text, changed, flavour, words = MISTAKES[program][mistake]
    examples = shutil.copytree(builder.EXAMPLES, tmp_path / "cuda")
    original = (examples / name).read_text()
    assert original.count(text) == 1, "the text to change must stand there once"
    (examples / name).write_text(original.replace(text, changed))
    done = run(builder.build_program(program, flavour, examples=examples), 1, SEEDS[flavour])
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
