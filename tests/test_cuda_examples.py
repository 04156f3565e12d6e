"""The CUDA examples on the host model: values against torch, bounds, order, and seeded mistakes."""

import re
import shutil
import subprocess
import sys
from itertools import product

import pytest
import torch

from tests.ahead import ahead, result
from tests.build_cache import EXAMPLES
from tests.cuda_build import build_examples
from tests.example_cases import GEMMS, ExampleCases
from tests.facts.cubins import ARCHS
from tests.facts.sass import find_cuobjdump, missing_tools
from tests.host_sim import builder, compiler
from tests.host_sim.runner import run, run_seeds

pytestmark = pytest.mark.skipif(
    compiler.find_compiler() is None, reason="no C++ compiler is installed"
)
PROGRAMS = ("check_vector_scale", "check_tiled_gemm", "check_tiled_gemm_sm90")
SEEDS = {"plain": 100, "asan": 6, "tsan": 3}


@pytest.fixture(scope="module")
def ops():
    torch.ops.load_library(builder.build_examples())
    return torch.ops.lowbit_examples_model


# ---- through torch ----


@pytest.fixture
def device():
    return torch.device("cpu")


@pytest.fixture(params=GEMMS)
def gemm(request) -> str:
    return request.param


@ahead(builder.build_examples)
class TestOnTheHostModel(ExampleCases):
    """The same as on a GPU (tests/gpu/test_cuda_examples.py)."""


# ---- compiled, without a GPU ----

# ctypes binds all symbols when it loads, and a torch without CUDA lacks the one that names the
# stream: nothing calls it here.
LOAD = """
import ctypes, os, sys, torch
dlopen, dlerror = ctypes.CDLL(None).dlopen, ctypes.CDLL(None).dlerror
dlopen.restype, dlerror.restype = ctypes.c_void_p, ctypes.c_char_p
assert dlopen(sys.argv[1].encode(), os.RTLD_LAZY), dlerror()
for op in sys.argv[2:]:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"lowbit_examples::{op}", "CUDA"), op
"""


@pytest.mark.slow
@pytest.mark.every_time
@pytest.mark.parametrize("arch", ["80", "90a"])
def test_library_for_gpus(arch):
    """It holds code of its architecture, and a torch without CUDA registers its ops."""
    if missing := missing_tools():
        pytest.skip(missing)
    library = build_examples(arch)
    listed = subprocess.run(
        [find_cuobjdump(), "-lelf", library], capture_output=True, text=True, check=True
    )
    held = set(re.findall(r"\.sm_(\w+)\.cubin", listed.stdout))
    assert held & set(ARCHS) == {arch}  # linking adds an empty one of nvcc's default
    command = [sys.executable, "-c", LOAD, library, "vector_scale", *GEMMS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- bounds, order and seeded mistakes, in programs without torch ----


RUNS = [(run_seeds, p, flavour, SEEDS[flavour]) for p, flavour in product(PROGRAMS, SEEDS)]


@pytest.mark.parametrize(
    "run", [pytest.param(r, marks=ahead(*r), id=f"{r[2]}-{r[1]}") for r in RUNS]
)
def test_random_cases(run):
    done = result(*run)
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
            "plain", "must not exceed those of its phase"),
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
            "ring.empty + (stage_before + 1) % Tile::kStages", "tsan", DEADLOCK),
        "products in flight not waited for": (SM90, "    wait_wgmma<1>();\n", "", "tsan", RACE),
        "sums stored before the last products": (SM90, "  wait_wgmma(sums);\n", "", "plain",
            LEFT_OVER),
        "no fence before the products": (SM90, "fence_wgmma();", ";", "plain",
            "fence_wgmma must stand"),
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
@pytest.mark.parametrize(
    "program, mistake",
    [(program, mistake) for program in PROGRAMS for mistake in MISTAKES[program]],
)
def test_seeded_mistake_is_caught(program, mistake, tmp_path):
    name, text, changed, flavour, words = MISTAKES[program][mistake]
    examples = shutil.copytree(EXAMPLES, tmp_path / "cuda")
    original = (examples / name).read_text()
    assert original.count(text) == 1, "the text to change must stand there once"
    (examples / name).write_text(original.replace(text, changed))
    done = run(builder.build_program(program, flavour, examples=examples), 1, SEEDS[flavour])
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
