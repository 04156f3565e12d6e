"""The one sentence in which lowbit refuses a call; csrc/torch_checks.h builds the same text."""

from collections.abc import Iterable
from typing import Any, NoReturn

import torch


def sentence(where: str, argument: str, need: str, got: Any, remedy: str = "") -> str:
    """`<op>: <argument> must <need>, got <value>`, then the remedy where there is one."""
    return f"{where}: {argument} must {need}, got {got}" + (f"; {remedy}" if remedy else "")


def refuse(
    where: str,
    argument: str,
    need: str,
    got: Any,
    remedy: str = "",
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raise `error` with the sentence."""
    raise error(sentence(where, argument, need, got, remedy))


def dtype_name(dtype: torch.dtype) -> str:
    """float32, not torch.float32."""
    return str(dtype).removeprefix("torch.")


def require_dtype(
    where: str,
    argument: str,
    dtype: torch.dtype,
    allowed: Iterable[torch.dtype],
    remedy: str = "",
) -> None:
    """TypeError unless the dtype is one of those allowed."""
    if dtype not in allowed:
        *others, last = (dtype_name(d) for d in allowed)
        need = f"be {', '.join(others)} or {last}" if others else f"be {last}"
        if not isinstance(dtype, torch.dtype):
            refuse(where, argument, need, repr(dtype), "pass a torch.dtype", TypeError)
        refuse(where, argument, need, dtype_name(dtype), remedy, TypeError)


def require_integer(where: str, argument: str, value: Any) -> None:
    """TypeError unless the value is an int (bool is none)."""
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(where, argument, "be an integer", repr(value), error=TypeError)


def require_tensor(where: str, argument: str, value: Any) -> None:
    """TypeError unless the value is a dense torch.Tensor."""
    if not isinstance(value, torch.Tensor):
        refuse(where, argument, "be a tensor", type(value).__name__, error=TypeError)
    if value.layout is not torch.strided:
        layout = str(value.layout).removeprefix("torch.")
        refuse(where, argument, "be a dense tensor", layout, "call .to_dense()", TypeError)


def require_device(where: str, argument: str, tensor: torch.Tensor, device: torch.device) -> None:
    """ValueError unless the tensor is on the device."""
    if tensor.device != device:
        remedy = "move all arguments to one device"
        refuse(where, argument, f"be on {device}", tensor.device, remedy)


def require_shape(where: str, argument: str, tensor: torch.Tensor, shape: Iterable[int]) -> None:
    """ValueError unless the tensor has the shape."""
    if tuple(tensor.shape) != tuple(shape):
        refuse(where, argument, f"have shape {list(shape)}", list(tensor.shape))


def require_contiguous(where: str, argument: str, tensor: torch.Tensor) -> None:
    """ValueError unless the tensor is dense in its order of dimensions."""
    if not tensor.is_contiguous():
        refuse(where, argument, "be contiguous", f"strides {list(tensor.stride())}")


def require_result(where: str, out, dtype, shape: Iterable[int], device) -> None:
    """TypeError or ValueError unless a kernel can write such a result into `out`."""
    require_dtype(where, "out", out.dtype, (dtype,))
    require_shape(where, "out", out, shape)
    require_device(where, "out", out, device)
    require_contiguous(where, "out", out)


def require_range(where: str, argument: str, field: str, value: int, low: int, high: int) -> None:
    """ValueError unless low <= value <= high."""
    if not low <= value <= high:
        refuse(where, argument, f"have {field} in {low}..{high}", value)
