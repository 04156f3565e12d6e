"""weight_only_linear in CUDA, on the host model: values in every mode, bounds, and mistakes."""

import dataclasses
import re

import pytest
import torch

import lowbit
from lowbit import registry
from lowbit.bench.cases import BACKWARD, CASES, LINEAR, Case
from lowbit.bench.check import check
from lowbit.bench.weight_specs import WeightSpec, in_layout
from lowbit.formats.numerics import default_mode
from lowbit.ops.weight_only_linear_cuda import bfloat16_parts
from lowbit.ops.weight_only_linear_gpu import CUDA_ELEMENTS
from tests.ahead import ahead, result
from tests.host_sim import backend, builder, compiler, mistakes, runner

pytestmark = [
    pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed"),
    ahead(builder.build_library),
]
WEIGHT = WeightSpec(n=70, k=300, block_k=128, zeros="code", layout="fragments")
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def model():
    return backend.load()


def of_kind(element: str) -> dict:
    bits = int(element[-1])
    return {"bits": bits, "table": "random" if element.startswith("table") else ""}


@pytest.mark.parametrize("mode", ["dense", "bf16", "fp16", "exact"])
@pytest.mark.parametrize("element", CUDA_ELEMENTS)
def test_every_format(model, element, mode):
    """Against the oracle: every kind of zero, groups within units and across stages, both tiles."""
    dtypes = (*HALVES, torch.float32)
    zero_kinds = ("none", "midpoint", "code", "value")
    start = CUDA_ELEMENTS.index(element) + len(mode)  # so that all combinations come somewhere
    for number, zeros in enumerate(zero_kinds, start):
        model.set_seed(number)
        block_k = (0, 40)[number % 2]
        weight = dataclasses.replace(WEIGHT, zeros=zeros, block_k=block_k, **of_kind(element))
        check(LINEAR, "cuda_model", Case(LINEAR, weight, (5,), dtypes[number % 3], mode))
    check(LINEAR, "cuda_model", Case(LINEAR, weight, (21,), torch.bfloat16, mode))


@pytest.mark.parametrize(
    ("kind", "zero_dtype"),
    [
        ("code", torch.float16),
        ("code", torch.float32),
        ("value", torch.bfloat16),
        ("value", torch.float32),
    ],
    ids=str,
)
def test_zeros_beyond_integers(model, kind, zero_dtype):
    for dtype in HALVES:
        weight = dataclasses.replace(WEIGHT, zeros=kind, zero_dtype=zero_dtype, block_k=64)
        check(LINEAR, "cuda_model", Case(LINEAR, weight, (3,), dtype, "dense"))


def linear(x, weight, mode=None, **options):
    """In the mode that is the default for x on a GPU."""
    mode = mode or default_mode("cuda", x.dtype)
    with lowbit.use_backend("cuda_model"):
        return lowbit.weight_only_linear(x, weight, mode=mode, **options)


def test_a_large_zero_of_bfloat16(model):
    """Codes less 200 need 8 bits and one for the sign: what is beyond 127 is a remainder."""
    weight = WEIGHT.make(0)
    weight = dataclasses.replace(weight, zeros=torch.full_like(weight.zeros, 200))
    x = torch.randn(4, WEIGHT.k).bfloat16()
    want = x.float() @ weight.dequantize().T
    torch.testing.assert_close(linear(x, weight).float(), want, rtol=1e-2, atol=1e-1)


@pytest.mark.parametrize("mode", ["bf16", "fp16", "exact"])
def test_rows_do_not_depend_on_their_number(model, mode):
    """Bit for bit: in the small tile and the large, with K in pieces of blocks and warps."""
    weight = dataclasses.replace(WEIGHT, n=40, k=1100).make(0)
    x = torch.randn(70, 1100).to(torch.float16 if mode == "fp16" else torch.bfloat16)
    many = linear(x, weight, mode=mode)
    for first, last in ((0, 1), (3, 12), (20, 53)):
        assert torch.equal(linear(x[first:last], weight, mode=mode), many[first:last])


def test_many_rows_go_to_the_library(model):
    """In the mode dense, and only there."""
    weight, x = WEIGHT.make(0), torch.randn(200, WEIGHT.k).bfloat16()
    dense = x @ weight.dequantize(torch.bfloat16).T
    assert torch.equal(linear(x, weight, mode="dense"), dense)
    assert not torch.equal(linear(x, weight, mode="bf16"), dense)


@pytest.mark.parametrize("bits", [4, 5])
def test_gradient(model, bits):
    """By the ops of the same backend: codes are unpacked, and chunks of the weight made dense."""
    spec = dataclasses.replace(WEIGHT, bits=bits, zeros="value")
    for dtype in (torch.float32, torch.bfloat16):
        check(BACKWARD, "cuda_model", Case(BACKWARD, spec, (5,), dtype))
    weight, x = WEIGHT.make(0), torch.randn(4, WEIGHT.k, requires_grad=True)
    (grad,) = torch.autograd.grad(linear(x, weight).sum(), x)
    torch.testing.assert_close(grad, torch.ones(4, 70) @ weight.dequantize())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_x_of_any_strides(model, dtype):
    weight = dataclasses.replace(WEIGHT, k=320).make(0)
    x = torch.randn(6, 320).to(dtype)
    want = linear(x, weight)
    wide = torch.zeros(6, 700, dtype=dtype)
    wide[:, 1:641:2] = x
    for view in (x.t().contiguous().t(), wide[:, 1:641:2]):
        assert torch.equal(linear(view, weight), want)
    assert torch.equal(linear(x[:1].expand(6, 320), weight), want[:1].expand(6, 70))


def test_scales_off_16_bytes(model):
    weight = WEIGHT.make(0)
    moved = dataclasses.replace(weight, scales=_moved(weight.scales), zeros=_moved(weight.zeros))
    x = torch.randn(3, WEIGHT.k).half()
    assert torch.equal(linear(x, moved), linear(x, weight))


def test_parts_add_up():
    values = torch.cat([torch.randn(1000), torch.tensor([3.4e38, -3.4e38, 1e-30, 0.0, -0.0])])
    parts = bfloat16_parts(values)
    assert all(part.dtype == torch.bfloat16 for part in parts)
    assert torch.equal(sum(part.double() for part in parts).float(), values)
    special = torch.tensor([float("inf"), -float("inf"), float("nan")])
    high, middle, low = bfloat16_parts(special)
    assert torch.equal(high.float().nan_to_num(7.0), special.nan_to_num(7.0))
    assert not middle.any() and not low.any()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32], ids=str)
def test_infinities_and_nan_stay_in_their_rows(model, dtype):
    weight = dataclasses.replace(WEIGHT, zeros="midpoint").make(0)
    x = torch.randn(9, WEIGHT.k).to(dtype)
    finite = linear(x, weight)
    for row, value in ((2, "inf"), (5, "-inf"), (8, "nan")):
        x[row, 7 * row] = float(value)
    y = linear(x, weight)
    others = [0, 1, 3, 4, 6, 7]
    assert torch.equal(y[others], finite[others])
    column = weight.dequantize()[:, 14]
    for n in range(len(column)):  # as 0 * inf is NaN
        want = column[n] * float("inf")
        assert y[2, n] == want or (want.isnan() and y[2, n].isnan())
    assert not y[[5, 8]].isfinite().any()


def test_graph_replay(model):
    """Replays read x anew. Of a call without memory of its own: the model's graphs keep none."""
    weight = dataclasses.replace(WEIGHT, n=64, k=320).make(0)
    first, second = torch.randn(2, 3, 320).half()
    wanted = [linear(each, weight) for each in (first, second)]
    x, out = first.clone(), torch.full((3, 64), 7.0).half()
    model.begin_capture()
    linear(x, weight, out=out)
    model.end_capture()
    assert (out == 7.0).all()
    for given, want in ((second, wanted[1]), (first, wanted[0]), (first, wanted[0])):
        x.copy_(given)
        model.replay()
        assert torch.equal(out, want)


def test_every_row_of_the_registry_is_covered():
    """What the capability row says is what the shared cases have on fragments."""
    (row,) = (row for row in registry.OPS[LINEAR].rows if row.backend == "cuda")
    cases = [case for case in CASES[LINEAR] if case.weight.layout == "fragments"]
    problems = [registry.OPS[LINEAR].problem(*case.make()) for case in cases]
    covered = [problem for problem in problems if row.decline(problem) is None]
    assert {p.element for p in covered} == set(CUDA_ELEMENTS)
    assert {p.mode for p in covered} == set(row.covers["mode"])


# ---- what the kernel's own entry refuses ----


def _operands() -> dict:
    weight = in_layout(dataclasses.replace(WEIGHT, layout="canonical", k=256).make(0), "fragments")
    names = ("qweight", "scales", "zeros", "table", "s0")
    return {
        "x": torch.randn(1, 3, 256).half(),
        **dict(zip(names, weight.tensors, strict=True)),
        "bias": torch.randn(70).half(),
        "addend": torch.randn(3, 70),
        "format": list(weight.format),
        "any_rows": False,
        "out": torch.full((3, 70), 7.0).half(),
    }


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """The same, off 16 bytes."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


def _field(index: int, value: int):
    return lambda fmt: [*fmt[:index], value, *fmt[index + 1 :]]


REFUSALS = (
    ("x must be float16 or bfloat16, got float32", "x", lambda t: t.float()),
    ("x must have 3 dimensions, got 2", "x", lambda t: t[0]),
    ("x must have 256 columns, got [1, 3, 255]", "x", lambda t: t[..., 1:]),
    ("x must have rows a multiple of 8 elements apart", "x", lambda t: t[:, :1].expand(1, 3, 256)),
    ("x must have unit stride along its last dimension", "x", lambda t: t.mT.contiguous().mT),
    ("x must start on 16 bytes, got 2 behind them; clone it", "x", _moved),
    ("qweight must start on 16 bytes, got 4 behind them; clone it", "qweight", _moved),
    ("scales must start on 16 bytes, got 2 behind them; clone it", "scales", _moved),
    ("zeros must start on 16 bytes, got 1 behind them; clone it", "zeros", _moved),
    ("format must have the layout fragments, got ", "format", _field(7, 1)),
    ("qweight must have shape [2, 2560], got [2, 2048]", "format", _field(1, 5)),
    ("table must have shape [16], got [8]", "table", lambda t: torch.zeros(8)),
    ("bias must have shape [70], got [69]", "bias", lambda t: t[1:]),
    ("bias must be float32, float16 or bfloat16, got int32", "bias", lambda t: t.int()),
    ("addend must be float32, got float16", "addend", lambda t: t.half()),
    ("addend must be contiguous", "addend", lambda t: t.t().contiguous().t()),
    ("out must have shape [3, 70], got [2, 70]", "out", lambda t: t[1:]),
    ("out must be contiguous", "out", lambda t: t.t().contiguous().t()),
    ("out must be float32, float16 or bfloat16, got float64", "out", lambda t: t.double()),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "argument", "change"), REFUSALS, ids=lambda v: str(v)[:50])
def test_refusals(model, sentence, argument, change):
    call = _operands()
    call[argument] = change(call[argument])
    before = call["out"].clone()
    with pytest.raises(ValueError, match=re.escape(f"weight_only_linear: {sentence}")):
        torch.ops.lowbit._fragment_linear.default(*call.values())
    assert torch.equal(call["out"], before)


@pytest.mark.parametrize(
    ("bits", "block", "sentence"),
    [
        (5, (1, 64), "format must have 2, 3, 4 or 8 bits, with a table 4, got 5"),
        (4, (3, 64), "format must have scales for each row, block_n 1, got 3"),
    ],
)
def test_weights_without_an_instance(model, bits, block, sentence):
    spec = WeightSpec(n=70, k=256, bits=bits, block_n=block[0], block_k=block[1], zeros="code")
    weight = in_layout(spec.make(0), "fragments")
    call = _operands()
    names = ("qweight", "scales", "zeros", "table", "s0")
    call |= dict(zip(names, weight.tensors, strict=True)) | {"format": list(weight.format)}
    with pytest.raises(ValueError, match=re.escape(f"weight_only_linear: {sentence}")):
        torch.ops.lowbit._fragment_linear.default(*call.values())
    assert (call["out"] == 7.0).all()


# ---- bounds and seeded mistakes, in a program without torch ----


# A seed takes 70 ms, 350 ms and 600 ms.
SEEDS = {"plain": 150, "asan": 24, "tsan": 6}


RUNS = {
    flavour: (runner.run_seeds, "check_weight_only_linear", flavour, SEEDS[flavour])
    for flavour in SEEDS
}


@pytest.mark.parametrize("run", [pytest.param(r, marks=ahead(*r), id=f) for f, r in RUNS.items()])
def test_random_cases(run):
    done = result(*run)
    assert done.returncode == 0, done.stdout + done.stderr


KERNEL, CODES, CONFIG = "weight_only_linear.cuh", "fragment_codes.cuh", "config.h"
OVERRUN, WRONG, RACE = "heap-buffer-overflow", "wrong value", "data race"
# file, text, what it becomes, the build that must notice, its words
MISTAKES = {
    "no barrier before a stage is read": (
        KERNEL, "    sync_named_barrier(1 + share.piece, c.row_warps * 32);\n", "", "tsan", RACE),
    "the next stage copied before the barrier": (
        KERNEL, "wait_stages(c.depth - 2);", "wait_stages(c.depth - 1);", "plain", WRONG),
    "sums over x that others still read": (
        KERNEL, "    sync_block();  // all have multiplied, and x makes room for sums\n", "",
        "tsan", RACE),
    "sums read before they are there": (
        KERNEL, "  sync_block();  // the sums are there\n", "", "tsan", RACE),
    "codes behind the last unit": (
        KERNEL, "if (unit >= c.units) continue;", "", "asan", OVERRUN),
    "rows of x behind the last": (
        KERNEL, "at < share.rows_m * kPerRow", "at < c.tile_m * kPerRow", "asan", OVERRUN),
    "columns of x behind the last": (
        KERNEL, "left < 8 ? left * 2 : 16", "16", "plain", WRONG),
    "results behind the last row": (
        KERNEL, "if (row >= share.rows_m) continue;", "", "asan", OVERRUN),
    "a group's scale for the next": (
        KERNEL, "      scales += c_.group_bytes;\n", "", "plain", WRONG),
    "rows of x in another order": (
        KERNEL, "lane / 16 * 8 + lane % 8", "lane / 8 % 2 * 8 + lane % 8", "plain", WRONG),
    "the zero of another row": (
        CODES, "zeros[q / 4 * 2 + q % 2]", "zeros[q / 4 + q % 2]", "plain", WRONG),
    "bytes of a table exchanged": (
        CODES, "bytes[0], bytes[1], 0x5140u", "bytes[1], bytes[0], 0x5140u", "plain", WRONG),
    "the third bit of another pair": (
        CODES, "words[2] >> (q - 2)", "words[2] >> (q - 1)", "plain", WRONG),
    "pieces of K that overlap": (
        KERNEL, "(of_all + 1) * c.stages / pieces", "(of_all + 1) * c.stages / pieces + 1", "plain",
        "must be one of shared memory"),
    "a ring of one stage": (
        CONFIG, "fits = with_memory(c, p, 2);", "fits = with_memory(c, p, 1);", "plain", WRONG),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_seeded_mistake_is_caught(mistake, tmp_path):
    *change, flavour, words = MISTAKES[mistake]
    seeds = {"plain": 150, "asan": 60, "tsan": 20}[flavour]
    said = mistakes.what_is_said(
        "check_weight_only_linear", change, "2,3,4,8", flavour, seeds, tmp_path
    )
    assert said and words in said
