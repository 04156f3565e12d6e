"""weight_only_linear: y = x @ dequantize(weight).T + (x @ A.T) @ B.T + bias, for float x."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from lowbit import registry
from lowbit.errors import (
    dtype_name,
    refuse,
    require_device,
    require_dtype,
    require_result,
    require_shape,
    require_tensor,
)
from lowbit.formats.matmul import low_rank_term, matmul_in_mode
from lowbit.formats.memory import may_overlap
from lowbit.formats.numerics import (
    EXACT,
    INT8X2,
    MODES,
    default_mode,
    mode_id,
    operand_dtype,
)
from lowbit.formats.weight_format import (
    CANONICAL,
    EVERY_WEIGHT,
    FRAGMENTS,
    LAYOUTS,
    PANELS,
    SCHEMA,
    WeightFormat,
    check_permutation,
    check_weight,
    read_format,
    require_layout,
    weight_kind,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized
from lowbit.ops.weight_only_linear_autograd import NAME, Linear, refuse_tangents
from lowbit.ops.weight_only_linear_gpu import CUDA_ELEMENTS, multiply_by_cuda, multiply_by_triton

X_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# The numeric mode is `numerics` here: torch's functionalization of mutable ops has an argument
# `mode` of its own, and a schema with that name fails under torch.compile (seen in torch 2.13).
INPUTS = (
    f"Tensor x, {SCHEMA}, Tensor? permutation, Tensor? bias, Tensor? low_rank_a, "
    "Tensor? low_rank_b, int[] format, int numerics"
)
_CPU_MODES = {dtype: mode_id(NAME, default_mode("cpu", dtype)) for dtype in X_DTYPES}

_GPU_MODES = tuple(mode for mode in MODES if mode != MODES[INT8X2])
# The layout that a kernel reads fastest comes first.
_CPU_LAYOUTS = (LAYOUTS[PANELS], LAYOUTS[CANONICAL])
_CUDA_LAYOUTS = (LAYOUTS[FRAGMENTS],)
_TRITON_LAYOUTS = (LAYOUTS[CANONICAL], LAYOUTS[FRAGMENTS])


class Arguments(NamedTuple):
    """The op's arguments, in the order of its schema."""

    x: torch.Tensor
    qweight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    table: torch.Tensor | None
    s0: torch.Tensor | None
    permutation: torch.Tensor | None
    bias: torch.Tensor | None
    low_rank_a: torch.Tensor | None
    low_rank_b: torch.Tensor | None
    format: Sequence[int]
    numerics: int


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    dtype: torch.dtype
    element: str
    zeros: str
    scales: torch.dtype
    layout: str
    mode: str
    operands: torch.dtype
    permuted: bool
    low_rank: bool


def problem(*args) -> Problem:
    a = Arguments(*args)
    kind = weight_kind(a.scales, a.table, a.format)
    extras = a.permutation is not None, a.low_rank_a is not None
    operands = operand_dtype(a.numerics, a.x.dtype, a.table is not None)
    return Problem(a.x.device, a.x.dtype, *kind, MODES[a.numerics], operands, *extras)


def check(*args) -> None:
    a = Arguments(*args)
    fmt = read_format(NAME, a.format)
    check_weight(NAME, *args[1:6], fmt)
    if not 0 <= a.numerics < len(MODES):
        refuse(NAME, "numerics", f"be in 0..{len(MODES) - 1}", a.numerics)
    require_dtype(NAME, "x", a.x.dtype, X_DTYPES)
    if a.x.dim() < 1 or a.x.shape[-1] != fmt.k:
        refuse(NAME, "x", f"have shape [..., {fmt.k}]", list(a.x.shape))
    require_device(NAME, "x", a.x, a.qweight.device)
    if a.permutation is not None:
        check_permutation(NAME, a.permutation, fmt, a.x.device)
    if a.bias is not None:
        _check_addend("bias", a.bias, (fmt.n,), a.x)
    _check_low_rank(a, fmt)


def _check_low_rank(a: Arguments, fmt: WeightFormat) -> None:
    given = [name for name in ("low_rank_a", "low_rank_b") if getattr(a, name) is not None]
    if len(given) == 1:
        other = "low_rank_b" if given[0] == "low_rank_a" else "low_rank_a"
        refuse(NAME, other, f"be a tensor, as {given[0]} is", "None")
    if not given:
        return
    if a.low_rank_a.dim() != 2:
        refuse(NAME, "low_rank_a", f"have shape [r, {fmt.k}]", list(a.low_rank_a.shape))
    rank = a.low_rank_a.shape[0]
    _check_addend("low_rank_a", a.low_rank_a, (rank, fmt.k), a.x)
    _check_addend("low_rank_b", a.low_rank_b, (fmt.n, rank), a.x)


def _check_addend(name: str, tensor: torch.Tensor, shape: tuple[int, ...], x) -> None:
    allowed = dict.fromkeys((x.dtype, torch.float32))
    remedy = "cast x or the bias" if name == "bias" else f"cast x or {name}"
    require_dtype(NAME, name, tensor.dtype, allowed, remedy)
    require_shape(NAME, name, tensor, shape)
    require_device(NAME, name, tensor, x.device)


def allocate(x, *args) -> torch.Tensor:
    fmt = args[-2]
    return x.new_empty((*x.shape[:-1], fmt[2]))


def reference(*args) -> None:
    a, out = Arguments(*args[:-1]), args[-1]
    y = matmul_in_mode(a.x, args[1:6], WeightFormat(*a.format), a.numerics, a.permutation)
    if a.low_rank_a is not None:
        y = y + low_rank_term(a.x, a.low_rank_a, a.low_rank_b)
    out.copy_(y if a.bias is None else y + a.bias.float())


def run_cuda(*args) -> None:
    """The CUDA kernel, on a call that may come from anywhere."""
    _run_on_gpu(args, multiply_by_cuda, _CUDA_LAYOUTS)


def run_triton(*args) -> None:
    """The Triton kernel, on a call that may come from anywhere."""
    _run_on_gpu(args, multiply_by_triton, _TRITON_LAYOUTS)


def _run_on_gpu(args: tuple, multiply: Callable, layouts: tuple[str, ...]) -> None:
    """multiply(arguments with x [m, k], out [m, n]) on a call that has been checked."""
    check(*args[:-1])
    a, out = Arguments(*args[:-1]), args[-1]
    fmt = WeightFormat(*a.format)
    require_layout(NAME, fmt, *layouts)
    if a.numerics == INT8X2:
        refuse(NAME, "numerics", f"be a mode among {', '.join(_GPU_MODES)}", MODES[INT8X2])
    require_result(NAME, out, a.x.dtype, (*a.x.shape[:-1], fmt.n), a.x.device)
    with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
        x = a.x.reshape(-1, fmt.k)
        multiply(a._replace(x=x, format=fmt), out.view(len(x), fmt.n))


def flatten(
    x, qweight: QuantizedWeight, bias=None, *, low_rank=None, mode: str | None = None
) -> tuple:
    """The op's arguments from those of the public function; refuses what must be refused."""
    require_quantized(NAME, "qweight", qweight)
    args = _arguments(x, qweight.parts, bias, low_rank, qweight.format, mode)
    _check_arguments(args)
    return args


def _arguments(x, parts, bias, low_rank, fmt: WeightFormat, mode: str | None) -> tuple:
    """The op's arguments. Only what is needed to make them is checked: the op checks the rest."""
    low_rank_a, low_rank_b = (None, None) if low_rank is None else _pair(low_rank)
    if not isinstance(x, torch.Tensor):
        require_tensor(NAME, "x", x)
    on_cpu = x.is_cpu
    kind = "cpu" if on_cpu else x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind) and x.dtype in X_DTYPES:
        tensors = {"x": x, "bias": bias, "low_rank_a": low_rank_a, "low_rank_b": low_rank_b}
        x, bias, low_rank_a, low_rank_b = _autocast(tensors, torch.get_autocast_dtype(kind))
    if mode is not None:
        numerics = mode_id(NAME, mode)
    elif on_cpu:
        numerics = _CPU_MODES.get(x.dtype, EXACT)
    else:
        numerics = mode_id(NAME, default_mode(kind, x.dtype))
    # In a NamedTuple torch would look for __torch_function__, in every call for 0.7 us.
    return (x, *parts, bias, low_rank_a, low_rank_b, tuple(fmt), numerics)


def _pair(low_rank) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(low_rank, (tuple, list)) or len(low_rank) != 2:
        got = type(low_rank).__name__
        refuse(NAME, "low_rank", "be a pair (A [r, K], B [N, r])", got, error=TypeError)
    for name, tensor in zip(("low_rank A", "low_rank B"), low_rank, strict=True):
        require_tensor(NAME, name, tensor)
    return low_rank


def _autocast(tensors: dict, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """As torch's linear casts its arguments."""
    for name, tensor in tensors.items():
        if tensor is not None:
            require_tensor(NAME, name, tensor)
    return [tensor if tensor is None else tensor.to(dtype) for tensor in tensors.values()]


def _check_arguments(args: tuple) -> None:
    require_tensor(NAME, "x", args[0])
    if args[7] is not None:
        require_tensor(NAME, "bias", args[7])
    check(*args)


OP = registry.Op(
    NAME,
    INPUTS,
    check=check,
    allocate=allocate,
    reference=reference,
    problem=problem,
    flatten=flatten,
)
_EVERY_CALL = {
    "dtype": X_DTYPES,
    **EVERY_WEIGHT,
    "permuted": (False, True),
    "low_rank": (False, True),
}
OP.add_kernel(
    registry.Kernel(
        "cpu",
        {**_EVERY_CALL, "layout": _CPU_LAYOUTS, "mode": MODES},
        "measured on Intel Xeon (AMX)",
    )
)
OP.add_kernel(
    registry.Kernel(
        "cuda",
        {**_EVERY_CALL, "element": CUDA_ELEMENTS, "layout": _CUDA_LAYOUTS, "mode": _GPU_MODES},
        "modelled, compiled",
        made_for={"element": CUDA_ELEMENTS, "mode": _GPU_MODES},
        run=run_cuda,
    )
)
OP.add_kernel(
    registry.Kernel(
        "triton",
        {**_EVERY_CALL, "layout": _TRITON_LAYOUTS, "mode": _GPU_MODES},
        "modelled, compiled",
        run=run_triton,
    )
)
_forward = OP.overload
_forward_out = OP.out_overload


def fastest_layout(device: torch.device, qweight: QuantizedWeight) -> str:
    """The layout in which the kernels that run here for a device read the weight fastest."""
    kind = weight_kind(qweight.scales, qweight.table, qweight.format)
    given = dict(zip(("element", "zeros", "scales"), kind, strict=False))
    for row in OP.rows:
        backend = registry.BACKENDS[row.backend]
        own = backend.device == device.type and backend.rank >= 0
        if not own or backend.missing(device) is not None:
            continue
        if all(value in row.covers.get(field, (value,)) for field, value in given.items()):
            return row.covers["layout"][0]
    return LAYOUTS[CANONICAL]


def weight_only_linear(
    x: torch.Tensor,
    qweight: QuantizedWeight,
    bias: torch.Tensor | None = None,
    *,
    low_rank: tuple[torch.Tensor, torch.Tensor] | None = None,
    mode: str | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """y[..., N] = x[..., K] @ qweight.dequantize().T + (x @ A.T) @ B.T + bias, in x's dtype.

    x: float32, float16 or bfloat16, any strides. qweight: a QuantizedWeight [N, K] on x's device.
    bias[N]: x's dtype or float32. low_rank: a pair (A [r, K], B [N, r]), each of x's dtype or
    float32, any strides, r = 0 allowed; its term is computed in float32 and x is not rounded for
    it. All is added in float32 and rounded once.
    mode: the numeric mode (docs/numerics.md): "int8x2" (the default for float32 and float16 x on
    the CPU), "bf16" (the default for bfloat16 x there), "dense" (the default for float16 and
    bfloat16 x on CUDA devices), "exact" (the default elsewhere) or "fp16".
    out: contiguous, [..., N], x's dtype; it is written and returned, and takes no part in autograd.

    Differentiable in x, bias, A and B, in reverse mode (NotImplementedError in forward mode); also
    under torch.func. Under autocast those four are cast as torch's linear casts its arguments.
    Row i of y does not depend on the number of rows on native CPU kernels, nor on native CUDA
    kernels in other modes than "dense", bit for bit.
    Raises TypeError or ValueError with one sentence on arguments that do not fit; nothing is
    written then.
    """
    require_quantized(NAME, "qweight", qweight)
    args = _arguments(x, qweight.parts, bias, low_rank, qweight.format, mode)
    if out is not None:
        _check_arguments(args)
        _check_out(out, args)
        _forward_out(*args, out)
        return out
    return _run(args)


def linear_of_parts(x, parts, bias, low_rank, fmt: WeightFormat, mode: str | None) -> torch.Tensor:
    """weight_only_linear for a weight given as its parts, in the op's order, and its format.

    For modules that keep the parts as buffers: traced programs then see buffers, not constants.
    """
    return _run(_arguments(x, parts, bias, low_rank, fmt, mode))


def _run(args: tuple) -> torch.Tensor:
    """The op refuses all that `check` refuses, so checking beforehand would be time lost."""
    try:
        if forward_ad._current_level >= 0:
            refuse_tangents(x=args[0], bias=args[7], low_rank_a=args[8], low_rank_b=args[9])
        if torch.is_grad_enabled() and _wants_gradient(args):
            return Linear.apply(*args)
        return _forward(*args)
    except Exception as error:
        failure = error
    _check_arguments(args)
    raise failure


def _wants_gradient(args: tuple) -> bool:
    x, bias, low_rank_a, low_rank_b = args[0], *args[7:10]
    return (
        x.requires_grad
        or (bias is not None and bias.requires_grad)
        or (low_rank_a is not None and (low_rank_a.requires_grad or low_rank_b.requires_grad))
    )


def _check_out(out: torch.Tensor, args: tuple) -> None:
    x, n = args[0], WeightFormat(*args[10]).n
    if torch.is_grad_enabled() and (out.requires_grad or _wants_gradient(args)):
        remedy = "leave it out, or call under torch.no_grad()"
        refuse(NAME, "out", "be None when a gradient is wanted", "a tensor", remedy)
    shape = (*x.shape[:-1], n)
    if out.dtype != x.dtype or tuple(out.shape) != shape or out.device != x.device:
        got = f"{dtype_name(out.dtype)} {list(out.shape)} on {out.device}"
        refuse(NAME, "out", f"be {dtype_name(x.dtype)} {list(shape)} on {x.device}", got)
    if not out.is_contiguous():
        refuse(NAME, "out", "be contiguous", f"strides {list(out.stride())}")
    if torch.compiler.is_compiling():
        return  # tensors have no memory yet; functionalization keeps results and inputs apart
    if any(t is not None and may_overlap(out, t) for t in args[:10]):
        refuse(NAME, "out", "not share memory with an input", "overlapping tensors")
