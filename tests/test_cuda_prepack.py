"""prepack_weight and unpack_weight in CUDA, on the host model: bits, bounds, and mistakes."""

import re

import pytest
import torch

import lowbit
from lowbit import QuantizedWeight, quantize_weight, use_backend
from lowbit.formats.weight_format import FRAGMENTS
from tests.ahead import ahead, result
from tests.host_sim import backend, builder, compiler, mistakes, runner
from tests.weight_cases import random_weight

pytestmark = [
    pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed"),
    ahead(builder.build_library),
]
SHAPES = ((1, 1), (3, 33), (64, 64), (65, 31), (130, 257), (7, 320))
CANARY = 0x55555555


@pytest.fixture(scope="module")
def model():
    return backend.load()


def fragments_of(weight: QuantizedWeight) -> QuantizedWeight:
    with use_backend("reference"):
        return lowbit.prepack(weight, "fragments")


def rows_of(packed: QuantizedWeight) -> torch.Tensor:
    with use_backend("reference"):
        return lowbit.unpack(packed).qweight


def check_kernel(name: str, args: tuple, want: torch.Tensor, offset: int) -> None:
    """Runs the kernel into the middle of a buffer and looks at all of the buffer."""
    canary = torch.full((want.numel() + 8,), CANARY, dtype=torch.int32)
    out = canary[offset : offset + want.numel()].view(want.shape)
    getattr(torch.ops.lowbit, f"{name}__cuda_model")(*args, out)
    assert torch.equal(out, want)
    assert (canary[:offset] == CANARY).all() and (canary[offset + want.numel() :] == CANARY).all()


def check_both_ways(weight: QuantizedWeight, offset: int = 4) -> None:
    packed = fragments_of(weight)
    args = weight.qweight, weight.format, FRAGMENTS
    check_kernel("prepack_weight", args, packed.qweight, offset)
    check_kernel("unpack_weight", (packed.qweight, packed.format), rows_of(packed), offset)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_format(model, bits):
    """Of rows with strides of their own and garbage behind their codes."""
    for seed, (n, k) in enumerate(SHAPES):
        model.set_seed(seed)
        for block_k in {1, 7, 32, 48, 64, k, k + 5}:
            weight = random_weight(n, k, bits, block=(1 + seed % 3, block_k), seed=seed)
            check_both_ways(weight)
            check_both_ways(weight, offset=3)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_aligned_rows(model, bits):
    """Whose words go several at a time, from and to all but the last tile."""
    for k in (256, 288):
        codes = torch.randint(0, 1 << bits, (70, k), dtype=torch.uint8)
        check_both_ways(QuantizedWeight.from_parts(codes, torch.ones(70, 1), bits=bits))


def test_misaligned_fragments(model):
    packed = fragments_of(random_weight(70, 77, 5))
    moved = torch.zeros(packed.qweight.numel() + 1, dtype=torch.int32)[1:].view_as(packed.qweight)
    moved.copy_(packed.qweight)
    check_kernel("unpack_weight", (moved, packed.format), rows_of(packed), 4)


def test_through_the_public_functions(model):
    weight = quantize_weight(torch.randn(200, 256), bits=3, group_size=64)
    sliced = weight.slice_rows(3, 150).slice_columns(64, 256)
    with use_backend("cuda_model"):
        for each in (weight, sliced, weight.slice_rows(4, 4)):
            packed = lowbit.prepack(each, "fragments")
            assert torch.equal(packed.qweight, fragments_of(each).qweight)
            assert torch.equal(lowbit.unpack(packed).qweight, rows_of(packed))


def test_panels_are_declined(model):
    weight = quantize_weight(torch.randn(70, 64))
    with use_backend("reference"):
        panels = lowbit.prepack(weight, "panels")
    text = "layout panels is not among fragments"
    with use_backend("cuda_model"):
        for call in (lambda: lowbit.prepack(weight, "panels"), lambda: lowbit.unpack(panels)):
            with pytest.raises(RuntimeError, match=text):
                call()


def _calls():
    """Refused calls of either kernel: (sentence, op, argument, its change)."""
    dtype = ("out", lambda t: t.float(), "out must be int32, got float32")
    shape = ("out", lambda t: t[:, 1:], "out must have shape [")
    dense = ("out", lambda t: t.t().contiguous().t(), "out must be contiguous, got strides [1, ")
    memory = ("out", _without_memory, "out must have memory for all its elements, got a storage")
    bits = ("format", lambda f: [1, 9, *f[2:]], "format must have bits in 1..8, got 9")
    words = ("qweight", lambda t: t.long(), "qweight must be int32, got int64")
    for op in ("prepack_weight", "unpack_weight"):
        for argument, change, sentence in (dtype, shape, dense, memory, bits, words):
            yield sentence, op, argument, change
    strided = "qweight must have unit stride along its last dimension, got stride 70; call"
    yield strided, "prepack_weight", "qweight", lambda t: t.t().contiguous().t()
    yield "qweight must be contiguous", "unpack_weight", "qweight", lambda t: t.t().contiguous().t()
    yield "layout must be in 1..2, got 3", "prepack_weight", "layout", lambda layout: 3
    yield "layout must be fragments, got panels", "prepack_weight", "layout", lambda layout: 1
    panels = "format must have the layout fragments, got panels"
    with use_backend("reference"):
        other = lowbit.prepack(quantize_weight(torch.randn(70, 64)), "panels")
    yield panels, "unpack_weight", "both", lambda _: (other.qweight, list(other.format))


def _without_memory(t: torch.Tensor) -> torch.Tensor:
    t.untyped_storage().resize_(0)
    return t


@pytest.mark.parametrize(
    ("sentence", "op", "argument", "change"), list(_calls()), ids=lambda value: str(value)[:40]
)
def test_refusals(model, sentence, op, argument, change):
    weight = quantize_weight(torch.randn(70, 64))
    packed = fragments_of(weight)
    source, made = (weight, packed) if op == "prepack_weight" else (packed, weight)
    call = {"qweight": source.qweight, "format": list(source.format)}
    call |= {"layout": FRAGMENTS} if op == "prepack_weight" else {}
    call |= {"out": torch.full_like(made.qweight, CANARY)}
    if argument == "both":
        call["qweight"], call["format"] = change(None)
    else:
        call[argument] = change(call[argument])
    with pytest.raises(ValueError, match=re.escape(f"{op}: {sentence}")):
        getattr(torch.ops.lowbit, f"{op}__cuda_model").default(*call.values())
    untouched = call["out"].untyped_storage().nbytes() == 0 or (call["out"] == CANARY).all()
    assert untouched


def test_graph_replay(model):
    """Replays read the codes anew, with the grid and the addresses of the capture."""
    first, second = (random_weight(70, 96, 4, seed=seed) for seed in range(2))
    held = first.qweight.clone()
    packed = torch.zeros_like(fragments_of(first).qweight)
    rows = torch.zeros_like(rows_of(fragments_of(first)))
    fmt = first.format._replace(layout=FRAGMENTS)
    model.begin_capture()
    torch.ops.lowbit.prepack_weight__cuda_model(held, first.format, FRAGMENTS, packed)
    torch.ops.lowbit.unpack_weight__cuda_model(packed, fmt, rows)
    model.end_capture()
    assert not packed.any() and not rows.any()
    for weight in (second, first, first):
        held.copy_(weight.qweight)
        model.replay()
        want = fragments_of(weight)
        assert torch.equal(packed, want.qweight) and torch.equal(rows, rows_of(want))


# ---- bounds and seeded mistakes, in a program without torch ----


# A seed takes 7 ms, 100 ms and 400 ms.
SEEDS = {"plain": 200, "asan": 24, "tsan": 4}


RUNS = {
    flavour: (runner.run_seeds, "check_prepack_weight", flavour, SEEDS[flavour])
    for flavour in SEEDS
}


@pytest.mark.parametrize("run", [pytest.param(r, marks=ahead(*r), id=f) for f, r in RUNS.items()])
def test_random_cases(run):
    done = result(*run)
    assert done.returncode == 0, done.stdout + done.stderr


KERNEL, CONFIG, ORDER = "prepack_weight.cuh", "config.h", "../index_bits.h"
OVERRUN, WRONG, MISALIGNED = "heap-buffer-overflow", "wrong value", "must be aligned to 16 bytes"
# file, text, what it becomes, bits of the cases, the build that must notice, its words
MISTAKES = {
    "load behind the plane": (
        KERNEL, "i < count ? load_constant(words + i) : 0", "load_constant(words + i)", 4, "asan",
        OVERRUN),
    "store behind the plane": (
        KERNEL, "if (i < count) store_word", "store_word", 4, "asan", OVERRUN),
    "columns past the last": (
        KERNEL, "smaller(first + c.block_k.value, k)", "first + c.block_k.value", 4, "asan",
        OVERRUN),
    "rows past the last": (
        KERNEL, "if (at.row() + r >= p.format.n) break;\n      store_row", "store_row", 2, "asan",
        OVERRUN),
    "lanes off 16 bytes": (
        CONFIG, "c.whole_lanes = p.packed_address % 16 == 0", "c.whole_lanes = true", 4, "plain",
        MISALIGNED),
    "rows off 16 bytes": (
        CONFIG, "c.whole_rows = starts_on_16_bytes(p)", "c.whole_rows = true", 4, "plain",
        MISALIGNED),
    "a second plane off 16 bytes": (
        CONFIG, "if (start % 4 != 0) return false;", "", 6, "plain", "must be aligned to "),
    "second plane not behind the first": (
        KERNEL, "columns, panel, rows + words)", "columns, panel, rows)", 3, "plain", WRONG),
    "columns turned the other way": (
        KERNEL, "(piece.to - piece.from)", "(piece.from - piece.to)", 4, "plain", WRONG),
    "a column too many": (
        KERNEL, "columns_before<kWidth>(piece.to + piece.count, i)",
        "columns_before<kWidth>(piece.to + piece.count + 1, i)", 4, "plain", WRONG),
    "columns before the piece kept": (
        KERNEL, "~columns_before<kWidth>(piece.to, i)", "~0u", 4, "plain", WRONG),
    "the second piece in place of the first": (
        KERNEL, "first ? word : *address | word", "word", 4, "plain", WRONG),
    "whole words over those of other pieces": (
        KERNEL, "if (whole && first) {", "if (whole) {", 4, "plain", WRONG),
    "a unit too many in each group": (
        CONFIG, "make_divisor(units_per_group(p.format))",
        "make_divisor(units_per_group(p.format) + 1)", 4, "asan", OVERRUN),
    "the halves of a pair swapped": (
        KERNEL, "(2 * kHalf), t = index / kHalf % 2", "(2 * kHalf), t = 1 - index / kHalf % 2", 8,
        "plain", WRONG),
    "steps to lanes not turned round": (
        KERNEL, "    exchange_distant_words(words);\n    exchange_words(words);\n",
        "    exchange_words(words);\n", 4, "plain", WRONG),
    "a field's neighbour moved along": (
        ORDER, "word0 ^= moved << kDistance;", "word0 ^= moved << (kDistance - 1);", 4, "plain",
        WRONG),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_seeded_mistake_is_caught(mistake, tmp_path):
    *change, bits, flavour, words = MISTAKES[mistake]
    assert words in mistakes.what_is_said(
        "check_prepack_weight", change, bits, flavour, 300, tmp_path
    )
