"""weight_only_linear: every case on every runner, gradients, autocast, rows and threads."""

import dataclasses
import functools
import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

import lowbit
from lowbit import QuantizedWeight, quantize_weight, registry, use_backend, weight_only_linear
from lowbit.bench.cases import CASES
from lowbit.bench.check import check
from lowbit.formats import weight_format
from lowbit.formats.matmul import matmul_in_mode
from lowbit.formats.numerics import MODES
from lowbit.ops.weight_only_linear import fastest_layout
from lowbit.registry import Kernel
from tests.runners import dealt

OP = "weight_only_linear"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def make(n=24, k=96, m=5, dtype=torch.float32, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    weight = quantize_weight(
        torch.randn(n, k, generator=generator), **{"group_size": 32, **options}
    )
    x = torch.randn(m, k, generator=generator).to(dtype)
    return x, weight, torch.randn(n, generator=generator).to(dtype)


@pytest.mark.parametrize(
    ("op", "case", "runner"), [*dealt(OP, CASES[OP])], indirect=["runner"], ids=str
)
def test_case(op, case, runner):
    check(op, runner, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_rows_do_not_depend_on_their_number(dtype, mode, bits, native_runner):
    x, weight, bias = make(n=70, k=200, m=37, dtype=dtype, bits=bits)
    whole = weight_only_linear(x, weight, bias, mode=mode)
    for i in (0, 1, 7, 16, 36):
        assert torch.equal(weight_only_linear(x[i], weight, bias, mode=mode), whole[i])
    for m in (2, 3, 8, 17, 36):
        assert torch.equal(weight_only_linear(x[:m], weight, bias, mode=mode), whole[:m])


@pytest.mark.parametrize("mode", ["exact", "int8x2", "bf16"])
def test_wide_layers_go_in_slabs_of_columns(mode, native_runner, threads):
    """From many rows on sums wait for the next columns outside of a task; for few they do not."""
    threads(2)  # more of them would get smaller blocks of rows, which take all columns at once
    x, weight, bias = make(n=520, k=4500, m=130, group_size=200)
    whole = weight_only_linear(x, weight, bias, mode=mode)
    for rows in (slice(0, 1), slice(127, 130)):
        assert torch.equal(weight_only_linear(x[rows], weight, bias, mode=mode), whole[rows])


@pytest.mark.parametrize("m", [1, 3, 40])
def test_thread_counts_do_not_matter(m, native_runner, threads):
    x, weight, bias = make(n=517, k=300, m=m)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(weight_only_linear(x, weight, bias))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_float16_x_is_exact_in_its_own_mode(runner):
    x, weight, bias = make(dtype=torch.float16)
    exact = weight_only_linear(x, weight, bias, mode="exact")
    assert torch.equal(weight_only_linear(x, weight, bias, mode="fp16"), exact)


@pytest.mark.parametrize(("mode", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_the_16_bit_modes_round_the_table(mode, dtype, runner):
    """On x and a table that are rounded already exact gives the same but for the sums' order."""
    x, weight, _ = make(element="nf4")
    x = x.to(dtype).float()  # in float32 no rounding of the result hides a difference
    table = weight.table.to(dtype).float()
    named = weight_only_linear(x, weight, mode=mode)
    exact = weight_only_linear(x, dataclasses.replace(weight, table=table), mode="exact")
    assert (named - exact).abs().max() < 1e-5
    assert (named - weight_only_linear(x, weight, mode="exact")).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dense_rounds_the_weight_as_a_dense_layer_holds_it(dtype):
    """By the reference, before the result is rounded too."""
    x, weight, _ = make(m=3, dtype=dtype)
    y = matmul_in_mode(x, weight.tensors, weight.format, MODES.index("dense"))
    dense = F.linear(x.float(), weight.dequantize(dtype).float())
    exact = F.linear(x.float(), weight.dequantize())
    assert (y - dense).abs().max() < 1e-5 and (y - exact).abs().max() > 1e-4


@pytest.mark.parametrize("element", ["uint", "nf4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_on_the_cpu_is_served_by_a_mode_that_is_no_less_exact(dtype, element, native_runner):
    x, weight, bias = make(m=7, dtype=dtype, element=element)
    mode = "bf16" if dtype == torch.bfloat16 and element == "uint" else "exact"
    named = weight_only_linear(x, weight, bias, mode=mode)
    assert torch.equal(weight_only_linear(x, weight, bias, mode="dense"), named)
    choice = lowbit.explain(OP, x, weight, mode="dense")
    assert choice.backend == native_runner and choice.slower_because is None


@pytest.mark.parametrize("element", ["uint", "nf4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_problem_names_the_dtype_of_the_operands(dtype, element):
    x, weight, _ = make(dtype=dtype, element=element)
    operands = {mode: lowbit.explain(OP, x, weight, mode=mode).problem.operands for mode in MODES}
    assert operands == {
        "exact": torch.float32 if element == "nf4" else dtype,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "int8x2": torch.int8,
        "dense": dtype,
    }


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [(torch.float32, "int8x2"), (torch.float16, "int8x2"), (torch.bfloat16, "bf16")],
)
def test_the_default_mode_on_the_cpu(dtype, mode, runner):
    x, weight, bias = make(dtype=dtype)
    named = weight_only_linear(x, weight, bias, mode=mode)
    assert torch.equal(weight_only_linear(x, weight, bias), named)
    assert lowbit.explain(OP, x, weight).problem.mode == mode
    meta = lowbit.explain(OP, x.to("meta"), weight.to("meta"))
    assert meta.problem.mode == "exact"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(value, runner):
    x, weight, _ = make(m=4)
    clean = weight_only_linear(x, weight)
    x[2, 50] = value
    y = weight_only_linear(x, weight)
    assert not torch.isfinite(y[2]).any()
    assert torch.isfinite(y[[0, 1, 3]]).all()
    assert torch.allclose(y[[0, 1, 3]], clean[[0, 1, 3]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prepacked", [False, True])
def test_zeros_beyond_int32(prepacked, native_runner):
    x, weight, _ = make(n=70)
    zeros = torch.tensor([2.0**31, 3e9, -3e9]).repeat(70, 1)
    weight = dataclasses.replace(weight, zeros=zeros)
    if prepacked:
        weight = lowbit.prepack(weight)
    with use_backend("reference"):
        want = weight_only_linear(x, weight, mode="int8x2")
    assert torch.equal(weight_only_linear(x, weight, mode="int8x2"), want)


@pytest.mark.parametrize("prepacked", [False, True])
@pytest.mark.parametrize("k", [7, 100, 101])
def test_table_entries_that_no_code_names_do_not_matter(k, prepacked, native_runner):
    """Padding has code 0, or what an earlier chunk left."""
    x, weight, _ = make(n=70, k=k, dtype=torch.bfloat16, element="nf4")
    odd = dataclasses.replace(weight, qweight=weight.qweight | 0x11111111)
    table = weight.table.clone()
    table[::2] = float("inf")
    infinite = dataclasses.replace(odd, table=table)
    if prepacked:
        odd, infinite = lowbit.prepack(odd), lowbit.prepack(infinite)
    want = weight_only_linear(x, odd, mode="bf16")
    assert torch.isfinite(want).all()
    assert torch.equal(weight_only_linear(x, infinite, mode="bf16"), want)


def test_slices_equal_rows_of_the_whole(native_runner):
    """MatFormer: a prefix of the rows, without a copy, gives the same bits."""
    x, weight, bias = make(n=64, k=128)
    whole = weight_only_linear(x, weight, bias)
    part = weight_only_linear(x, weight.slice_rows(7, 39), bias[7:39])
    assert torch.equal(part, whole[:, 7:39])
    columns = weight.slice_columns(32, 96)
    packed = QuantizedWeight(
        *(t if t is None else t.clone() for t in columns.tensors), columns.format
    )
    assert torch.equal(
        weight_only_linear(x[:, 32:96], columns), weight_only_linear(x[:, 32:96], packed)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (), (0,)])
def test_gradients_are_those_of_linear_on_the_dequantized_weight(dtype, with_bias, shape, runner):
    _, weight, bias = make()
    x = torch.randn(*shape, 96).to(dtype).requires_grad_()
    bias = bias.to(dtype).requires_grad_() if with_bias else None
    y = weight_only_linear(x, weight, bias)
    seed = torch.randn_like(y)
    inputs = [t for t in (x, bias) if t is not None]
    got = torch.autograd.grad(y, inputs, seed)
    x64 = x.detach().double().requires_grad_()
    bias64 = bias.detach().double().requires_grad_() if with_bias else None
    y64 = F.linear(x64, weight.dequantize().double(), bias64)
    want = torch.autograd.grad(y64, [t for t in (x64, bias64) if t is not None], seed.double())
    for g, w in zip(got, want, strict=True):
        assert g.dtype == dtype and g.shape == w.shape
        step = torch.finfo(dtype).eps
        # one rounding of the result, and float32 sums of at most 24 terms
        bound = step * w.abs() + 24 * 2.0**-23 * w.abs().max() if w.numel() else w
        assert ((g.double() - w).abs() <= bound).all()


def test_gradient_against_differences(runner):
    """y is linear in x, so a central difference is exact but for rounding."""
    x, weight, bias = make(n=8, k=16, m=2, group_size=8)
    direction = torch.randn_like(x)
    x.requires_grad_()
    linear = functools.partial(weight_only_linear, qweight=weight, bias=bias, mode="exact")
    (linear(x) * torch.arange(8.0)).sum().backward()
    with torch.no_grad():
        ahead, behind = (
            (linear(x + s * direction).double() * torch.arange(8.0)).sum() for s in (1, -1)
        )
    slope = ((ahead - behind) / 2).item()
    size = (x.detach().abs() @ weight.dequantize().abs().T @ torch.arange(8.0)).sum().item()
    assert abs((x.grad * direction).sum().item() - slope) <= 64 * 2.0**-23 * size * 4


def test_second_derivatives(runner):
    x, weight, bias = make(n=8, k=16, m=3, group_size=8)
    x.requires_grad_()
    w = weight.dequantize()

    def penalty(linear):
        y = linear(x)
        (g,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        (h,) = torch.autograd.grad((g**2).sum() + (x**2).sum(), x, create_graph=True)
        return h, *torch.autograd.grad(h.sum(), x)

    got = penalty(lambda x: weight_only_linear(x, weight, bias, mode="exact"))
    want = penalty(lambda x: F.linear(x, w, bias))
    for g, r in zip(got, want, strict=True):
        assert torch.allclose(g, r, rtol=1e-3, atol=1e-3 * r.abs().max().item())


def test_no_gradient_for_the_weight():
    x, weight, _ = make()
    y = weight_only_linear(x.requires_grad_(), weight)
    y.sum().backward()
    assert all(t is None or t.grad is None for t in weight.tensors)


def test_bias_alone_may_want_a_gradient(runner):
    x, weight, bias = make(dtype=torch.bfloat16)
    bias = bias.float().requires_grad_()
    weight_only_linear(x, weight, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full_like(bias, 5.0))


def test_backward_runs_on_the_backend_of_its_forward():
    """Backward runs in a thread of autograd, where no use_backend is in force."""
    x, weight, _ = make()
    x.requires_grad_()
    with use_backend("reference"):
        y = weight_only_linear(x, weight)
    worker = threading.Thread(target=lambda: y.sum().backward())
    worker.start()
    worker.join()
    assert torch.allclose(x.grad, weight.dequantize().sum(0).expand_as(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_autocast_casts_as_linear_does(autocast, dtype, with_bias, runner):
    x, weight, bias = make(dtype=dtype)
    bias = bias if with_bias else None
    with torch.autocast("cpu", autocast):
        y = weight_only_linear(x, weight, bias)
        like = F.linear(x, weight.dequantize(), bias)
    assert y.dtype == like.dtype == autocast
    cast = bias if bias is None else bias.to(autocast)
    assert torch.equal(y, weight_only_linear(x.to(autocast), weight, cast))
    with torch.autocast("cpu", enabled=False):
        assert weight_only_linear(x, weight, bias).dtype == dtype


def test_autocast_gradients_reach_the_uncast_x(runner):
    x, weight, bias = make()
    x.requires_grad_(), bias.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        weight_only_linear(x, weight, bias).sum().backward()
    assert x.grad.dtype == torch.float32 and bias.grad.dtype == torch.float32
    want = weight.dequantize().sum(0)
    assert torch.allclose(x.grad[0], want, rtol=2.0**-8, atol=1e-4)


def test_autocast_does_not_reach_into_the_op(runner):
    x, weight, _ = make()
    args = (x, *weight.parts, None, None, None, list(weight.format), 0)
    outside = torch.ops.lowbit.weight_only_linear(*args)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.ops.lowbit.weight_only_linear(*args), outside)


def test_inference_mode_and_no_grad(runner):
    x, weight, bias = make()
    expected = weight_only_linear(x, weight, bias)
    with torch.inference_mode():
        assert torch.equal(weight_only_linear(x, weight, bias), expected)
        made_inside = quantize_weight(torch.ones(4, 96))
    weight_only_linear(x, made_inside)
    with torch.no_grad():
        assert not weight_only_linear(x.requires_grad_(), weight).requires_grad


def test_out(runner):
    x, weight, bias = make()
    out = torch.full((5, 24), float("nan"))
    assert weight_only_linear(x, weight, bias, out=out) is out
    assert torch.equal(out, weight_only_linear(x, weight, bias))


@pytest.mark.parametrize(
    ("out", "text"),
    [
        (torch.ones(5, 23), "out must be float32 [5, 24] on cpu, got float32 [5, 23] on cpu"),
        (torch.ones(24), "out must be float32 [5, 24] on cpu, got float32 [24] on cpu"),
        (torch.ones(5, 24).half(), "out must be float32 [5, 24] on cpu, got float16 [5, 24] on"),
        (torch.ones(5, 24, device="meta"), "out must be float32 [5, 24] on cpu, got float32"),
        (torch.ones(24, 5).t(), "out must be contiguous, got strides [1, 5]"),
        (torch.ones(1, 24).expand(5, 24), "out must be contiguous, got strides [0, 1]"),
    ],
)
def test_out_refusals_change_nothing(out, text, runner):
    x, weight, bias = make()
    with pytest.raises(ValueError) as refusal:
        weight_only_linear(x, weight, bias, out=out)
    assert str(refusal.value).startswith(f"{OP}: {text}")
    assert out.is_meta or (out == 1).all()


def test_out_must_not_overlap_inputs_nor_want_gradients(runner):
    x, weight, _ = make(n=96, m=5)
    for out in (x, x.view(5, 96)):
        with pytest.raises(ValueError, match="out must not share memory with an input"):
            weight_only_linear(x, weight, out=out)
    with pytest.raises(ValueError, match="out must be None when a gradient is wanted"):
        weight_only_linear(x.requires_grad_(), weight, out=torch.empty(5, 96))


def test_meta_tensors_give_meta_results():
    x, weight, bias = make()
    y = weight_only_linear(x.to("meta"), weight.to("meta"), bias.to("meta"))
    assert y.is_meta and y.shape == (5, 24)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_modes_do_not_follow_the_matmul_precision_of_torch(precision, mode, runner):
    x, weight, bias = make(n=64, k=64, m=64)
    pair = torch.randn(3, 64), torch.randn(64, 3)
    linear = functools.partial(weight_only_linear, x, weight, bias, low_rank=pair, mode=mode)
    expected = linear()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        error = (linear() - expected).abs().max()
        assert error <= 64 * 2.0**-23 * expected.abs().max()  # bfloat16 operands lose 2**-9
    finally:
        torch.set_float32_matmul_precision(before)


def test_calls_from_many_threads(runner):
    x, weight, bias = make(n=130, k=256, m=9)
    expected, results = weight_only_linear(x, weight, bias), [[] for _ in range(6)]

    def work(i):
        backend = use_backend("reference" if runner == "reference" else "cpu")
        isa = runner_isa if runner == "cpu" else None
        with backend, lowbit.native.use_isa(isa) if isa else use_backend(runner):
            results[i] = [weight_only_linear(x, weight, bias) for _ in range(20)]

    runner_isa = lowbit.native.isa() if runner == "cpu" else None
    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        assert len(result) == 20 and all(torch.equal(y, expected) for y in result)


_FORK = """
import os, sys, torch, lowbit
w = lowbit.quantize_weight(torch.randn(256, 512))
x = torch.randn(16, 512)
y = lowbit.weight_only_linear(x, w)
pid = os.fork()
if pid == 0:
    torch.set_num_threads(1)
    same = torch.equal(lowbit.weight_only_linear(x, w), y)
    os._exit(0 if same else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert torch.equal(lowbit.weight_only_linear(x, w), y)
print("both agree")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_after_fork():
    run = subprocess.run(
        [sys.executable, "-c", _FORK], capture_output=True, text=True, timeout=60, env=_child_env()
    )
    assert run.stdout.strip() == "both agree", run.stderr


def _child_env():
    path = os.path.dirname(os.path.dirname(lowbit.__file__))
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize("bug", ["zero", "group"])
def test_the_check_catches(bug, monkeypatch):
    true = weight_format.dequantize_parts

    def wrong(qweight, scales, zeros, table, s0, fmt):
        if bug == "group":
            scales = scales.flip(1)
        else:
            zeros = zeros.float() + 1
        return true(qweight, scales, zeros, table, s0, fmt)

    monkeypatch.setattr("lowbit.formats.matmul.dequantize_parts", wrong)
    usable = (c for c in CASES[OP] if c.weight.zeros == "code" and c.m and c.weight.n)
    case = next(c for c in usable if c.weight.k >= 2 * c.weight.block_k > 0 and not c.nonfinite)
    with pytest.raises(AssertionError):
        check(OP, "reference", case)


def test_the_fastest_layout_is_that_of_kernels_that_run_here(monkeypatch):
    linear = registry.OPS[OP]
    rows = [Kernel("reference", {}, "the definition")]
    rows.insert(0, Kernel("triton", {"layout": ("canonical", "fragments")}, "test"))
    rows.insert(0, Kernel("cpu", {"layout": ("panels", "canonical")}, "test"))
    fragments = {"layout": ("fragments",), "element": ("uint4",), "zeros": ("none", "code")}
    rows.insert(0, Kernel("cuda", fragments, "test"))
    monkeypatch.setattr(linear, "rows", rows)
    missing = dict.fromkeys(("cpu", "cuda", "triton"))
    for name in missing:
        backend = dataclasses.replace(
            registry.BACKENDS[name], missing=lambda device, name=name: missing[name]
        )
        monkeypatch.setitem(registry.BACKENDS, name, backend)
    _, weight, _ = make()
    others = [make(bits=3)[1], make(symmetric=True)[1]]
    cpu, cuda, meta = (torch.device(kind) for kind in ("cpu", "cuda", "meta"))
    assert [fastest_layout(cpu, w) for w in (weight, *others)] == ["panels"] * 3
    assert (
        fastest_layout(cuda, weight) == "fragments" and fastest_layout(meta, weight) == "canonical"
    )
    assert [fastest_layout(cuda, w) for w in others] == ["canonical"] * 2
    missing["cpu"] = missing["cuda"] = "it was not built"
    assert fastest_layout(cpu, weight) == fastest_layout(cuda, weight) == "canonical"
