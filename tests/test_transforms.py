"""weight_only_linear under torch.func and in forward mode; gradients of empty results."""

import pytest
import torch
from torch.autograd import forward_ad

from lowbit import quantize_weight, weight_only_linear

N, K = 8, 64
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = quantize_weight(torch.randn(N, K, generator=GENERATOR) / 8, group_size=32)
MATRIX = WEIGHT.dequantize()
X = torch.randn(3, K, generator=GENERATOR)
BIAS = torch.randn(N, generator=GENERATOR)


def squares(x):
    return weight_only_linear(x, WEIGHT, mode="exact").pow(2).sum()


def test_gradient_and_gradient_of_each_sample():
    expected = 2 * (X @ MATRIX.t()) @ MATRIX
    torch.testing.assert_close(torch.func.grad(squares)(X), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(squares))(X), expected)


def test_second_derivative():
    expected = 2 * MATRIX.t() @ MATRIX
    for hessian in (
        torch.func.jacrev(torch.func.jacrev(squares))(X[0]),
        torch.autograd.functional.hessian(squares, X[0]),
    ):
        torch.testing.assert_close(hessian, expected)


def test_jacobian_of_the_bias():
    jacobian = torch.func.jacrev(lambda b: weight_only_linear(X, WEIGHT, b))(BIAS)
    assert torch.equal(jacobian, torch.eye(N).expand(3, N, N))


@pytest.mark.parametrize("name", ["x", "bias"])
def test_forward_mode_is_refused(name):
    with forward_ad.dual_level():
        arguments = {"x": X, "bias": BIAS}
        arguments[name] = forward_ad.make_dual(arguments[name], arguments[name])
        with pytest.raises(NotImplementedError, match=f"{name} must have no forward-mode tangent"):
            weight_only_linear(qweight=WEIGHT, **arguments)
        assert weight_only_linear(X, WEIGHT, BIAS).shape == (3, N)


def test_forward_over_reverse_is_refused():
    with pytest.raises(NotImplementedError, match="tangent|forward mode"):
        torch.func.hessian(squares)(X[0])


@pytest.mark.parametrize(("rows", "n"), [((3,), 0), ((), 0), ((0, 2), N), ((), N)])
def test_gradients_of_empty_and_single_results(rows, n):
    weight = quantize_weight(torch.zeros(n, K), group_size=32)
    x, bias = torch.ones(*rows, K, requires_grad=True), torch.zeros(n, requires_grad=True)
    weight_only_linear(x, weight, bias).sum().backward()
    count = torch.Size(rows).numel()
    assert x.grad.shape == x.shape and torch.equal(bias.grad, torch.full((n,), float(count)))
