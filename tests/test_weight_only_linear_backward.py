"""weight_only_linear_backward: every case on every runner, bits, rows, threads and gradcheck."""

import pytest
import torch

from lowbit import prepack, quantize_weight, registry, weight_only_linear
from lowbit.bench.cases import CASES, Case
from lowbit.bench.check import check, declined, same_bits
from lowbit.bench.weight_specs import WeightSpec
from lowbit.ops.weight_only_linear_backward import weight_only_linear_backward
from tests.runners import RUNNERS, covered, running_on

OP = "weight_only_linear_backward"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NATIVE = [runner for runner in RUNNERS if runner.startswith("cpu-")]
SEVERAL_PANELS = WeightSpec(n=200, k=150, block_k=48, bits=3, zeros="code")


def run(args):
    return registry.OPS[OP].overload(*args)


@pytest.mark.parametrize(
    ("op", "case", "runner"), covered(OP, CASES[OP]), indirect=["runner"], ids=str
)
def test_case(op, case, runner):
    check(op, runner, case)


@pytest.mark.skipif(len(NATIVE) < 2, reason="fewer than two instruction sets run here")
@pytest.mark.parametrize(
    "case", [c for c in CASES[OP][::3] if not declined(OP, "cpu", c.make())], ids=str
)
def test_every_instruction_set_gives_the_same_bits(case):
    args = case.make()
    results = []
    for runner in NATIVE:
        with running_on(runner):
            results.append(run(args))
    for result in results[1:]:
        assert same_bits(result, results[0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["canonical", "panels"])
def test_rows_do_not_depend_on_their_number(dtype, layout, native_runner):
    weight = SEVERAL_PANELS.make(0)
    weight = prepack(weight) if layout == "panels" else weight
    grad = torch.randn(210, weight.format.n, generator=torch.Generator().manual_seed(1)).to(dtype)
    whole = weight_only_linear_backward(grad, weight.tensors, weight.format)
    for m in (1, 2, 15, 16, 17, 40, 49, 193):
        part = weight_only_linear_backward(grad[:m], weight.tensors, weight.format)
        assert torch.equal(part, whole[:m])
    for i in (0, 7, 47, 48, 191, 209):
        row = weight_only_linear_backward(grad[i], weight.tensors, weight.format)
        assert torch.equal(row, whole[i])


def test_both_layouts_give_the_same_bits(native_runner):
    weight = SEVERAL_PANELS.make(0)
    packed = prepack(weight)
    grad = torch.randn(19, weight.format.n)
    canonical = weight_only_linear_backward(grad, weight.tensors, weight.format)
    panels = weight_only_linear_backward(grad, packed.tensors, packed.format)
    assert torch.equal(canonical, panels)


@pytest.mark.parametrize("m", [1, 3, 100])
def test_thread_counts_do_not_matter(m, native_runner, threads):
    args = Case(OP, WeightSpec(n=517, k=900, zeros="code"), rows=(m,)).make()
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(args))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_many_rows_are_worked_on_in_passes(native_runner):
    """One pass over grad holds 16 MiB: 210 rows of 20000 numbers, of which 192 make whole tasks."""
    weight = WeightSpec(n=20000, k=8, block_k=8, bits=1).make(0)
    grad = torch.randn(402, weight.format.n, generator=torch.Generator().manual_seed(1))
    whole = weight_only_linear_backward(grad, weight.tensors, weight.format)
    last = weight_only_linear_backward(grad[390:], weight.tensors, weight.format)
    assert torch.equal(whole[390:], last)
    assert torch.allclose(whole, grad @ weight.dequantize(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(value, native_runner):
    weight = SEVERAL_PANELS.make(0)
    grad = torch.randn(20, weight.format.n)
    clean = weight_only_linear_backward(grad, weight.tensors, weight.format)
    grad[7, 100] = value
    got = weight_only_linear_backward(grad, weight.tensors, weight.format)
    assert not torch.isfinite(got[7]).any()
    rest = [i for i in range(20) if i != 7]
    assert torch.equal(got[rest], clean[rest])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.filterwarnings("ignore:Input #0 requires gradient and is not a double")
def test_gradcheck_with_the_default_modes(dtype, packed, runner):
    """y is linear in x: a long step keeps the rounding of x and y small beside the difference."""
    weight = quantize_weight(torch.randn(6, 24), group_size=8)
    weight = prepack(weight) if packed else weight
    x = torch.randn(2, 24).to(dtype).requires_grad_()

    def linear(x):
        return weight_only_linear(x, weight)

    error = 0.02 * weight.dequantize().abs().max().item()
    assert torch.autograd.gradcheck(linear, x, eps=16.0, atol=error, rtol=0.0)


def test_autograd_takes_the_native_kernel(native_runner):
    weight = SEVERAL_PANELS.make(0)
    x = torch.randn(5, weight.format.k, requires_grad=True)
    seed = torch.randn(5, weight.format.n)
    weight_only_linear(x, weight).backward(seed)
    out = torch.empty_like(x)
    getattr(torch.ops.lowbit, f"{OP}__cpu")(seed, *weight.tensors, weight.format, out)
    assert torch.equal(x.grad, out)
    with registry.use_backend("reference"):
        assert not torch.equal(x.grad, run((seed, *weight.tensors, weight.format)))
