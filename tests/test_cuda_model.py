"""The CUDA texts on the host model: values against the reference, bounds, and seeded mistakes."""

import re
import subprocess
import sys

import pytest
import torch

import lowbit
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES, ZERO_KINDS
from lowbit.formats.weights import QuantizedWeight
from lowbit.ops.dequantize_weight import OUT_DTYPES
from tests.ahead import ahead, result
from tests.host_sim import backend, builder, compiler, mistakes, runner
from tests.weight_cases import assert_same_bits, random_weight

pytestmark = [
    pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed"),
    ahead(builder.build_library),
]
SHAPES = ((1, 1), (1, 40), (3, 33), (5, 64), (2, 257), (7, 24))


@pytest.fixture(scope="module")
def model():
    return backend.load()


def check_values(weight: QuantizedWeight, dtype: torch.dtype, offset: int = 16) -> None:
    """Runs the kernel into the middle of a buffer and looks at all of the buffer."""
    n, k = weight.shape
    canary = torch.full((n * k + 48,), 77.0, dtype=dtype)
    out = canary[offset : offset + n * k].view(n, k)
    torch.ops.lowbit.dequantize_weight__cuda_model(*weight.tensors, weight.format, dtype, out)
    assert_same_bits(out, weight.dequantize(dtype))
    assert (canary[:offset] == 77.0).all() and (canary[offset + n * k :] == 77.0).all()


@pytest.mark.parametrize("dtype", OUT_DTYPES, ids=str)
@pytest.mark.parametrize("kind", ZERO_KINDS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_format(model, bits, kind, dtype):
    for seed, (n, k) in enumerate(SHAPES):
        model.set_seed(seed)
        for block_k in {1, 5, 8, 32, k}:
            weight = random_weight(n, k, bits, kind=kind, block=(1 + seed % 3, block_k), seed=seed)
            check_values(weight, dtype)
            check_values(weight, dtype, offset=17)


@pytest.mark.parametrize("s0", [None, "tensor", "row"])
@pytest.mark.parametrize("zeros", ZERO_DTYPES, ids=str)
@pytest.mark.parametrize("scales", SCALE_DTYPES, ids=str)
def test_stored_dtypes(model, scales, zeros, s0):
    for kind in ("code", "value"):
        weight = random_weight(
            9, 160, 4, block=(2, 7), kind=kind, scales=scales, zeros=zeros, s0=s0
        )
        check_values(weight, torch.float32)
        check_values(weight, torch.bfloat16)


@pytest.mark.parametrize("kind", ZERO_KINDS)
@pytest.mark.parametrize("bits", range(1, 5))
def test_tables(model, bits, kind):
    for dtype in OUT_DTYPES:
        check_values(random_weight(4, 72, bits, kind=kind, table=True, s0="row"), dtype)


@pytest.mark.parametrize("k", [8, 999, 1000])
def test_order_of_threads_does_not_matter(model, k):
    """Enough runs that each thread of the model's small grid takes several."""
    weight = random_weight(160000 // k, k, 5, block=(1, 16), kind="code")
    for seed in range(4):
        model.set_seed(seed)
        check_values(weight, torch.float16)


def test_through_the_public_function(model):
    weight = lowbit.quantize_weight(torch.randn(33, 130), bits=3, group_size=48)
    sliced = weight.slice_rows(5, 20).slice_columns(48, 111)
    with lowbit.use_backend("cuda_model"):
        for each in (weight, sliced, weight.slice_rows(4, 4)):
            assert_same_bits(
                lowbit.dequantize_weight(each, torch.bfloat16), each.dequantize(torch.bfloat16)
            )


REFUSALS = {
    "qweight must be int32, got int64": {"qweight": lambda t: t.long()},
    "qweight must have shape [4, 8], got [3, 8]": {"qweight": lambda t: t[:3]},
    "qweight must have unit stride along its last dimension, got stride 4": {
        "qweight": lambda t: t.t().contiguous().t()
    },
    "scales must have shape [4, 2], got [2, 4]": {"scales": lambda t: t.reshape(2, 4)},
    "zeros must be a tensor for the zero kind code, got None": {"zeros": lambda t: None},
    "format must have bits in 1..8, got 9": {"format": lambda f: [1, 9, *f[2:]]},
    "dtype must be float32, float16 or bfloat16, got float64": {"dtype": lambda d: torch.float64},
    "out must be float32, got float16": {"out": lambda t: t.half()},
    "out must be contiguous, got strides [1, 4]": {"out": lambda t: t.t().contiguous().t()},
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusals(model, sentence):
    weight = random_weight(4, 64, 4)
    names = ("qweight", "scales", "zeros", "table", "s0", "format", "dtype", "out")
    given = (*weight.tensors, list(weight.format), torch.float32, torch.zeros(4, 64))
    call = dict(zip(names, given, strict=True))
    for name, change in REFUSALS[sentence].items():
        call[name] = change(call[name])
    kernel = torch.ops.lowbit.dequantize_weight__cuda_model.default
    before = call["out"].clone()
    with pytest.raises(ValueError, match=re.escape(f"dequantize_weight: {sentence}")):
        kernel(*call.values())
    assert torch.equal(call["out"], before)


def test_graph_replay(model):
    """Replays read the weight anew, with the grid and the addresses of the capture."""
    first, second = (random_weight(6, 64, 4, seed=seed) for seed in range(2))
    held = [None if part is None else part.clone() for part in first.tensors]
    out = torch.full((6, 64), 77.0)
    model.begin_capture()
    torch.ops.lowbit.dequantize_weight__cuda_model(*held, first.format, torch.float32, out)
    model.end_capture()
    assert (out == 77.0).all()
    for weight in (second, first, first):
        for part, new in zip(held, weight.tensors, strict=True):
            if part is not None:
                part.copy_(new)
        model.replay()
        assert_same_bits(out, weight.dequantize(torch.float32))


def test_lowbit_check_runs_the_shared_cases():
    command = [sys.executable, "-m", "lowbit", "check", "--seed", "3", "--case", "bfloat16"]
    command += ["--cuda-model", builder.build_library()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d+) of \1 cases passed on 1 backend \(cuda_model\)", done.stdout)


def test_lowbit_check_refuses_another_library(tmp_path):
    file = tmp_path / "text.so"
    file.write_text("no library")
    command = [sys.executable, "-m", "lowbit", "check", "--cuda-model", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "lowbit check: --cuda-model must be a library of the host model" in done.stderr


# ---- bounds and seeded mistakes, in a program without torch ----


# A seed takes 3 ms, 40 ms and 150 ms.
SEEDS = {"plain": 400, "asan": 60, "tsan": 8}


RUNS = {
    flavour: (runner.run_seeds, "check_dequantize_weight", flavour, SEEDS[flavour])
    for flavour in SEEDS
}


@pytest.mark.parametrize("run", [pytest.param(r, marks=ahead(*r), id=f) for f, r in RUNS.items()])
def test_random_cases(run):
    done = result(*run)
    assert done.returncode == 0, done.stdout + done.stderr


KERNEL, CONFIG = "dequantize_weight.cuh", "config.h"
OVERRUN, WRONG, MISALIGNED = "heap-buffer-overflow", "wrong value", "must be aligned to 16 bytes"
FUSED = "std::fma(sub_rn(values[i], g.before), g.scale, g.after)"
# file, text, what it becomes, bits of the cases, the build that must notice, its words
MISTAKES = {
    "read behind the plane": (
        KERNEL, "first + i < plane_words ?", "true ?", 8, "asan", OVERRUN),
    "store behind the row": (
        KERNEL, "if (i < count) store_element", "store_element", 4, "asan", OVERRUN),
    "second store of a short run": (
        KERNEL, "if (part * kPerStore >= count) break;", "", 4, "asan", OVERRUN),
    "whole stores off 16 bytes": (
        CONFIG, "p.out_address % kStoreBytes == 0", "true", 4, "plain", MISALIGNED),
    "thread past the last row": (
        KERNEL, "while (row < n)", "while (row <= n)", 2, "asan", OVERRUN),
    "scale behind the last group": (
        KERNEL, "first + kRun && begin < k", "first + kRun && begin <= k", 4, "asan", OVERRUN),
    "wrong shift within the word": (
        KERNEL, "run % kRunsPerWord * kBits", "run % kRunsPerWord * kWidth", 2, "plain", WRONG),
    "second plane not shifted": (
        KERNEL, "fields.field(i) << kShift", "fields.field(i)", 3, "plain", WRONG),
    "second plane a word early": (
        KERNEL, "(plane + words, k", "(plane + words - 1, k", 3, "plain", WRONG),
    "group of the next column": (
        KERNEL, "block_k.divide(first)", "block_k.divide(first + 1)", 4, "plain", WRONG),
    "last column in the group before": (
        KERNEL, "end >= first + kRun)", "end + 1 >= first + kRun)", 4, "plain", WRONG),
    "rows skipped in the step": (
        CONFIG, "step / row_runs)", "step / row_runs + 1)", 4, "plain", WRONG),
    "one rounding where the rule has two": (
        KERNEL, "add_rn(mul_rn(sub_rn(values[i], g.before), g.scale), g.after)", FUSED, 4,
        "plain", WRONG),
    "divisor rounded down": (
        CONFIG, "static_cast<uint64_t>(value) + 1", "static_cast<uint64_t>(value)", 4, "plain",
        WRONG),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_seeded_mistake_is_caught(mistake, tmp_path):
    *change, bits, flavour, words = MISTAKES[mistake]
    told = mistakes.what_is_said("check_dequantize_weight", change, bits, flavour, 400, tmp_path)
    assert words in told
