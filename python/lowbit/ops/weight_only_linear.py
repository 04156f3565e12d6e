"""weight_only_linear: y = x @ dequantize(weight).T + bias, for float x and a quantized weight."""

from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from lowbit import registry
from lowbit.errors import (
    dtype_name,
    refuse,
    require_device,
    require_dtype,
    require_shape,
    require_tensor,
)
from lowbit.formats.memory import may_overlap
from lowbit.formats.numerics import MODES, matmul_float32, mode_id, round_operand
from lowbit.formats.weight_format import (
    EVERY_CANONICAL_WEIGHT,
    SCHEMA,
    WeightFormat,
    check_weight,
    dequantize_parts,
    read_format,
    weight_kind,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized
from lowbit.ops.weight_only_linear_backward import weight_only_linear_backward

NAME = "weight_only_linear"
X_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# The numeric mode is `numerics` here: torch's functionalization of mutable ops has an argument
# `mode` of its own, and a schema with that name fails under torch.compile (seen in torch 2.13).
INPUTS = f"Tensor x, {SCHEMA}, Tensor? bias, int[] format, int numerics"


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    dtype: torch.dtype
    element: str
    zeros: str
    scales: torch.dtype
    layout: str
    mode: str


def problem(x, qweight, scales, zeros, table, s0, bias, format, numerics) -> Problem:
    return Problem(x.device, x.dtype, *weight_kind(scales, table, format), MODES[numerics])


def check(x, qweight, scales, zeros, table, s0, bias, format, numerics) -> None:
    fmt = read_format(NAME, format)
    check_weight(NAME, qweight, scales, zeros, table, s0, fmt)
    if not 0 <= numerics < len(MODES):
        refuse(NAME, "numerics", f"be in 0..{len(MODES) - 1}", numerics)
    check_input(x, qweight, bias, fmt)


def check_input(x, qweight, bias, fmt: WeightFormat) -> None:
    """What can differ from call to call once the weight itself was checked."""
    if x.dtype not in X_DTYPES:
        require_dtype(NAME, "x", x.dtype, X_DTYPES)
    if x.dim() < 1 or x.shape[-1] != fmt.k:
        refuse(NAME, "x", f"have shape [..., {fmt.k}]", list(x.shape))
    require_device(NAME, "x", x, qweight.device)
    if bias is not None:
        allowed = dict.fromkeys((x.dtype, torch.float32))
        require_dtype(NAME, "bias", bias.dtype, allowed, "cast x or the bias")
        require_shape(NAME, "bias", bias, (fmt.n,))
        require_device(NAME, "bias", bias, x.device)


def allocate(x, qweight, scales, zeros, table, s0, bias, format, numerics) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], format[2]))


def reference(x, qweight, scales, zeros, table, s0, bias, format, numerics, out) -> None:
    w = dequantize_parts(qweight, scales, zeros, table, s0, WeightFormat(*format))
    y = matmul_float32(round_operand(x, numerics), w.t())
    out.copy_(y if bias is None else y + bias.float())


def flatten(x, qweight: QuantizedWeight, bias=None, *, mode: str | None = None) -> tuple:
    """The op's arguments from those of the public function; refuses what must be refused."""
    require_quantized(NAME, "qweight", qweight)
    return _flatten_parts(x, qweight.tensors, bias, qweight.format, mode)


def _flatten_parts(x, tensors, bias, fmt: WeightFormat, mode: str | None) -> tuple:
    if not isinstance(x, torch.Tensor) or x.layout is not torch.strided:
        require_tensor(NAME, "x", x)
    if bias is not None:
        require_tensor(NAME, "bias", bias)
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.dtype in X_DTYPES:
        x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = bias if bias is None else bias.to(x.dtype)
    check_input(x, tensors[0], bias, fmt)
    return (x, *tensors, bias, fmt, mode_id(NAME, mode))


OP = registry.Op(
    NAME,
    INPUTS,
    check=check,
    allocate=allocate,
    reference=reference,
    problem=problem,
    flatten=flatten,
)
OP.add_kernel(
    registry.Kernel(
        "cpu",
        {"dtype": X_DTYPES, **EVERY_CANONICAL_WEIGHT, "mode": MODES},
        "measured on Intel Xeon (AVX-512)",
    )
)
_forward = OP.overload
_forward_out = OP.out_overload


class _Linear(torch.autograd.Function):
    """Entered only when x or bias needs a gradient; codes and scales get none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, bias, qweight, scales, zeros, table, s0, fmt, numerics):
        return _forward(x, qweight, scales, zeros, table, s0, bias, fmt, numerics)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, bias, *tensors, ctx.fmt, _ = inputs
        ctx.save_for_backward(*tensors)
        # Backward may run in another thread, which would not see this thread's use_backend. A
        # compiled graph reads it at run time instead.
        ctx.backend = None if torch.compiler.is_compiling() else registry.forced_backend()
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx, grad):
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            # torch.compile traces no autograd.Function inside the backward of another one.
            compiling = torch.compiler.is_compiling()
            run = _input_gradient if compiling else _InputGradient.apply
            grad_x = run(grad, ctx.backend, ctx.fmt, *ctx.saved_tensors)
        if ctx.needs_input_grad[1]:
            # Spelled out, because torch cannot infer the rows of a gradient without columns.
            rows = grad.reshape(grad.shape[:-1].numel(), grad.shape[-1])
            grad_bias = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return grad_x, grad_bias, None, None, None, None, None, None, None


class _InputGradient(torch.autograd.Function):
    """grad @ w for a second derivative: linear in grad, so its gradient is the op without bias."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad, backend, fmt, *tensors):
        return _input_gradient(grad, backend, fmt, *tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, _, ctx.fmt, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad):
        exact = mode_id(NAME, "exact")
        again = _Linear.apply(grad, None, *ctx.saved_tensors, ctx.fmt, exact)
        return again, None, None, *(None for _ in ctx.saved_tensors)


def _input_gradient(grad, backend, fmt, *tensors):
    if forward_ad._current_level >= 0:
        _refuse_tangents(grad=grad)
    if backend is None:
        return weight_only_linear_backward(grad, tensors, fmt)
    with registry.use_backend(backend):
        return weight_only_linear_backward(grad, tensors, fmt)


def weight_only_linear(
    x: torch.Tensor,
    qweight: QuantizedWeight,
    bias: torch.Tensor | None = None,
    *,
    mode: str | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """y[..., N] = x[..., K] @ qweight.dequantize().T + bias, in x's dtype, with float32 sums.

    x: float32, float16 or bfloat16, any strides. qweight: a QuantizedWeight [N, K] on x's device.
    bias[N]: x's dtype or float32. mode: the numeric mode (docs/numerics.md): "exact" (x as it is,
    the default), "bf16" or "fp16" (x rounded once). out: contiguous, [..., N], x's dtype; it is
    written and returned, and takes no part in autograd.

    Differentiable in x and bias, in reverse mode (NotImplementedError in forward mode); also under
    torch.func. Under autocast x and bias are cast as torch's linear casts them.
    Row i of y does not depend on the number of rows on native CPU kernels, bit for bit.
    Raises TypeError or ValueError with one sentence on arguments that do not fit; nothing is
    written then.
    """
    args = flatten(x, qweight, bias, mode=mode)
    if out is not None:
        _check_out(out, *args)
        _forward_out(*args, out)
        return out
    return _run(*args)


def linear_of_parts(x, tensors, bias, fmt: WeightFormat, mode: str | None) -> torch.Tensor:
    """weight_only_linear for a weight given as (qweight, scales, zeros, table, s0) and its format.

    For modules that keep the parts as buffers: traced programs then see buffers, not constants.
    """
    return _run(*_flatten_parts(x, tensors, bias, fmt, mode))


def _run(*args) -> torch.Tensor:
    x, bias = args[0], args[6]
    if forward_ad._current_level >= 0:
        _refuse_tangents(x=x, bias=bias)
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        return _Linear.apply(x, bias, *args[1:6], *args[7:])
    return _forward(*args)


def _refuse_tangents(**tensors: torch.Tensor | None) -> None:
    """torch would drop the tangents of forward-mode differentiation without a word."""
    for name, tensor in tensors.items():
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            remedy = "differentiate in reverse mode (torch.func.vjp, jacrev)"
            refuse(NAME, name, "have no forward-mode tangent", "one", remedy, NotImplementedError)


def _check_out(out, x, *rest) -> None:
    shape = (*x.shape[:-1], rest[6].n)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, rest[5], out)
    ):
        remedy = "leave it out, or call under torch.no_grad()"
        refuse(NAME, "out", "be None when a gradient is wanted", "a tensor", remedy)
    if out.dtype != x.dtype or tuple(out.shape) != shape or out.device != x.device:
        got = f"{dtype_name(out.dtype)} {list(out.shape)} on {out.device}"
        refuse(NAME, "out", f"be {dtype_name(x.dtype)} {list(shape)} on {x.device}", got)
    if not out.is_contiguous():
        refuse(NAME, "out", "be contiguous", f"strides {list(out.stride())}")
    if torch.compiler.is_compiling():
        return  # tensors have no memory yet; functionalization keeps results and inputs apart
    if any(t is not None and may_overlap(out, t) for t in (x, *rest[:6])):
        refuse(NAME, "out", "not share memory with an input", "overlapping tensors")
