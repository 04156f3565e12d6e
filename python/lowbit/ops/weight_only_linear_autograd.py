"""The gradients of weight_only_linear, for x, bias and low-rank pair; codes and scales get none.

An autograd.Function, entered only when a gradient is wanted: register_autograd would cost several
microseconds in every call. What it does to bias and low-rank pair is plain differentiable torch, so
second derivatives come from autograd; the product with the weight has a Function of its own.
"""

import torch
from torch.autograd import forward_ad

from lowbit import registry
from lowbit.errors import refuse
from lowbit.formats.numerics import EXACT
from lowbit.formats.weight_format import logical_columns
from lowbit.ops.weight_only_linear_backward import weight_only_linear_backward

NAME = "weight_only_linear"


class Linear(torch.autograd.Function):
    """Takes the arguments of the op, in its order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args):
        return torch.ops.lowbit.weight_only_linear.default(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *weight, permutation, bias, low_rank_a, low_rank_b, ctx.fmt, _ = inputs
        x = x if any(ctx.needs_input_grad[8:10]) else None  # else its memory need not stay
        ctx.save_for_backward(x, permutation, low_rank_a, low_rank_b, *weight)
        # Backward may run in another thread, which would not see this thread's use_backend. A
        # compiled graph reads it at run time instead.
        ctx.backend = None if torch.compiler.is_compiling() else registry.forced_backend()
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx, grad):
        x, permutation, low_rank_a, low_rank_b, *weight = ctx.saved_tensors
        grad_x = grad_bias = grad_a = grad_b = None
        if low_rank_a is not None:
            through_b = grad.float() @ low_rank_b.float()
        if ctx.needs_input_grad[0]:
            grad_x = logical_columns(_through_weight(ctx, grad, weight), permutation)
            if low_rank_a is not None:
                grad_x = (grad_x.float() + through_b @ low_rank_a.float()).to(grad.dtype)
        if ctx.needs_input_grad[7]:
            grad_bias = _rows(grad).sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        if ctx.needs_input_grad[8]:
            grad_a = (_rows(through_b).t() @ _rows(x).float()).to(low_rank_a.dtype)
        if ctx.needs_input_grad[9]:
            inner = _rows(x).float() @ low_rank_a.float().t()
            grad_b = (_rows(grad).float().t() @ inner).to(low_rank_b.dtype)
        return grad_x, *[None] * 6, grad_bias, grad_a, grad_b, None, None


def _through_weight(ctx, grad, weight):
    # torch.compile traces no autograd.Function inside the backward of another one.
    run = _input_gradient if torch.compiler.is_compiling() else _InputGradient.apply
    return run(grad, ctx.backend, ctx.fmt, *weight)


class _InputGradient(torch.autograd.Function):
    """grad @ w for a second derivative: linear in grad, so its gradient is the op without bias."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad, backend, fmt, *weight):
        return _input_gradient(grad, backend, fmt, *weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, _, ctx.fmt, *weight = inputs
        ctx.save_for_backward(*weight)

    @staticmethod
    def backward(ctx, grad):
        weight = ctx.saved_tensors
        again = Linear.apply(grad, *weight, *[None] * 4, ctx.fmt, EXACT)
        return again, None, None, *[None] * len(weight)


def _input_gradient(grad, backend, fmt, *weight):
    refuse_tangents(grad=grad)
    if backend is None:
        return weight_only_linear_backward(grad, weight, fmt)
    with registry.use_backend(backend):
        return weight_only_linear_backward(grad, weight, fmt)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    # Spelled out, because torch cannot infer the rows of a tensor without columns.
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def refuse_tangents(**tensors: torch.Tensor | None) -> None:
    """torch would drop the tangents of forward-mode differentiation without a word."""
    if forward_ad._current_level < 0:
        return
    for name, tensor in tensors.items():
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            remedy = "differentiate in reverse mode (torch.func.vjp, jacrev)"
            refuse(NAME, name, "have no forward-mode tangent", "one", remedy, NotImplementedError)
