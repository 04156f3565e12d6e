"""weight_only_linear with permuted weights: stored column j is logical column permutation[j]."""

import dataclasses

import pytest
import torch

from lowbit import QuantizedWeight, prepack, quantize_weight, use_backend, weight_only_linear
from lowbit.formats.numerics import MODES
from tests.properties import given, st

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def make(n=24, k=96, rows=(4,), dtype=torch.float32, seed=0, layout="canonical", **options):
    """(x, weight in stored order, the same weight with a permutation)."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n, k, generator=generator)
    stored = quantize_weight(matrix, **{"group_size": 32, **options})
    stored = prepack(stored) if layout == "panels" else stored
    order = torch.randperm(k, generator=generator, dtype=torch.int32)
    x = torch.randn(*rows, k, generator=generator).to(dtype)
    return x, stored, dataclasses.replace(stored, permutation=order)


@pytest.mark.parametrize("layout", ["canonical", "panels"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_stored_weight_on_gathered_columns(layout, mode, dtype):
    x, stored, permuted = make(dtype=dtype, layout=layout, bits=3)
    gathered = x[:, permuted.permutation.long()]
    with use_backend("reference"):
        want = weight_only_linear(gathered, stored, mode=mode)
        assert torch.equal(weight_only_linear(x, permuted, mode=mode), want)


def test_equals_the_gathered_columns_by_default(runner):
    x, stored, permuted = make(n=70, k=300, rows=(19,))
    want = weight_only_linear(x[:, permuted.permutation.long()], stored)
    assert torch.equal(weight_only_linear(x, permuted), want)
    assert torch.equal(weight_only_linear(x[3], permuted), want[3])


@given(n=st.integers(1, 70), k=st.integers(1, 200), bits=st.integers(1, 8), seed=st.integers(0, 99))
def test_any_size(n, k, bits, seed):
    x, _, permuted = make(n, k, bits=bits, seed=seed)
    with use_backend("reference"):
        y = weight_only_linear(x, permuted, mode="exact")
    want = x.double() @ permuted.dequantize().double().t()
    size = x.abs().double() @ permuted.dequantize().abs().double().t()
    assert ((y - want).abs() <= k * 2.0**-23 * size).all()


@pytest.mark.parametrize("layout", ["canonical", "panels"])
def test_gradients_are_in_the_order_of_x(layout):
    x, _, permuted = make(layout=layout)
    x.requires_grad_()
    seed = torch.randn(4, 24)
    with use_backend("reference"):
        weight_only_linear(x, permuted).backward(seed)
    torch.testing.assert_close(x.grad, seed @ permuted.dequantize(), rtol=1e-5, atol=1e-5)


def test_the_low_rank_pair_acts_on_logical_columns(runner):
    x, _, permuted = make()
    pair = [torch.randn(3, 96).requires_grad_(), torch.randn(24, 3)]
    y = weight_only_linear(x, permuted, low_rank=pair, mode="exact")
    y.square().sum().backward()
    a = pair[0].detach().clone().requires_grad_()
    want = x @ permuted.dequantize().t() + (x @ a.t()) @ pair[1].t()
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-4)
    want.square().sum().backward()
    torch.testing.assert_close(pair[0].grad, a.grad, rtol=1e-4, atol=1e-2)


def test_transforms_and_second_derivatives(runner):
    x, _, permuted = make(n=6, k=16, group_size=8)
    w = permuted.dequantize()

    def squares(x):
        return weight_only_linear(x, permuted, mode="exact").pow(2).sum()

    want = 2 * x @ w.t() @ w
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(squares))(x), want)
    hessian = torch.func.jacrev(torch.func.jacrev(squares))(x[0])
    torch.testing.assert_close(hessian, 2 * w.t() @ w)


def test_compiled_and_exported():
    torch._dynamo.reset()
    x, _, permuted = make()

    class Layer(torch.nn.Module):
        def forward(self, x):
            return weight_only_linear(x, permuted)

    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    grads = []
    for call in (layer, compiled):
        leaf = x.clone().requires_grad_()
        y = call(leaf)
        y.square().sum().backward()
        grads.append((y.detach(), leaf.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-4)
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), layer(x))


def test_the_columns_of_gptq_with_act_order():
    """g_idx gives the group of each logical column."""
    generator = torch.Generator().manual_seed(3)
    n, k, groups = 10, 64, 4
    g_idx = torch.randperm(k, generator=generator) % groups
    codes = torch.randint(0, 16, (n, k), generator=generator)
    scales = torch.rand(n, groups, generator=generator)
    zeros = torch.randint(0, 16, (n, groups), generator=generator)
    order = torch.argsort(g_idx, stable=True)
    weight = QuantizedWeight.from_parts(codes[:, order], scales, zeros, bits=4, permutation=order)
    want = (codes - zeros[:, g_idx]) * scales[:, g_idx]
    assert torch.equal(weight.dequantize(), want)
    x = torch.randn(3, k, generator=generator)
    torch.testing.assert_close(weight_only_linear(x, weight, mode="exact"), x @ want.t())
