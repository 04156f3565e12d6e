"""QuantLinear: nn.Linear with a quantized weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lowbit.errors import dtype_name, refuse, require_device, require_shape
from lowbit.formats.memory import own_memory
from lowbit.formats.numerics import mode_id
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.weight_format import PARTS, read_format
from lowbit.formats.weights import QuantizedWeight, require_quantized, storable_scales
from lowbit.ops.weight_only_linear import linear_of_parts

_NAME = "QuantLinear"
_REQUIRED = ("format", "qweight", "scales")


class QuantLinear(torch.nn.Module):
    """y[..., N] = x[..., K] @ weight.T + bias with a QuantizedWeight [N, K]: weight_only_linear.

    The parts of the weight are buffers: qweight, scales and, where the format has them, zeros,
    table and s0. bias[N] is a Parameter or None. x: float32, float16 or bfloat16; bias: x's dtype
    or float32. Gradients reach x and bias.

    Casts of the module (half(), bfloat16(), to(dtype), type()) cast the bias alone, because a cast
    of codes or scales would change the weight. Moves (to(device), to_empty, share_memory) move all.

    The state dict holds those tensors and `format`, the int64 integers of the WeightFormat, so that
    strict loading, safetensors and torch.load(weights_only=True) need nothing else. Loading takes
    the settings of the file: an int8 file loads into a module made for int4 when the sizes agree,
    and buffers of the same shape and dtype are written in place. A file of another size or of a
    newer format_version is refused, and such a refusal leaves the module as it was. (Missing and
    unexpected keys are torch's business: it reports them after it has loaded the others.) `mode`
    says how to compute, not what is stored, and is not saved.

    mode: the numeric mode (docs/numerics.md), also an attribute; None is "exact".
    Raises TypeError or ValueError when weight, bias or mode do not fit. A part that is a view into
    larger memory (a slice) is copied, other parts are kept as they are.
    """

    qweight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    table: torch.Tensor | None
    s0: torch.Tensor | None

    def __init__(
        self,
        weight: QuantizedWeight,
        bias: torch.Tensor | None = None,
        mode: str | None = None,
    ):
        super().__init__()
        require_quantized(_NAME, "weight", weight)
        mode_id(_NAME, mode)
        self.mode = mode or "exact"
        self._format = weight.format
        for part, tensor in zip(PARTS, weight.tensors, strict=True):
            self.register_buffer(part, None if tensor is None else own_memory(tensor.detach()))
        self.register_parameter("bias", _bias_parameter(bias, weight))

    @classmethod
    def from_linear(
        cls, linear: torch.nn.Linear, *, mode: str | None = None, **options: Any
    ) -> QuantLinear:
        """Quantize the weight of a Linear; `options` are those of quantize_weight.

        The bias is the same Parameter, and the module is in training mode if `linear` is.
        Raises what quantize_weight raises, and TypeError for another module.
        """
        if not isinstance(linear, torch.nn.Linear):
            where, got = f"{_NAME}.from_linear", type(linear).__name__
            refuse(where, "linear", "be a torch.nn.Linear", got, error=TypeError)
        module = cls(quantize_weight(linear.weight, **options), linear.bias, mode)
        return module.train(linear.training)

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mode: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> QuantLinear:
        """A module of zeros to load a state dict into; also on the meta device.

        dtype: of the bias and of the weight that is stood for. `options` are those of
        quantize_weight; since loading takes the settings of the file, they matter only for what
        the module holds until then.
        """
        dtype = dtype or torch.get_default_dtype()
        device = torch.device(device) if device is not None else torch.get_default_device()
        # One row is enough to learn every shape, dtype and the format from quantize_weight itself.
        row = quantize_weight(torch.zeros(1, in_features, dtype=dtype, device="cpu"), **options)
        parts = [
            part if part is None or name in ("table", "s0") else part.repeat(out_features, 1)
            for name, part in zip(PARTS, row.tensors, strict=True)
        ]
        weight = QuantizedWeight(*parts, row.format._replace(n=out_features)).to(device)
        zeros = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        return cls(weight, zeros, mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_of_parts(x, self._parts(), self.bias, None, self._format, self.mode)

    @property
    def weight(self) -> QuantizedWeight:
        """The buffers as a QuantizedWeight, checked; it shares their memory."""
        return QuantizedWeight(*self._tensors(), self._format)

    @property
    def in_features(self) -> int:
        """K, the columns of the weight."""
        return self._format.k

    @property
    def out_features(self) -> int:
        """N, the rows of the weight."""
        return self._format.n

    def extra_repr(self) -> str:
        weight = self.weight
        element = "uint" if weight.table is None else "table"
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {element}{weight.bits}, "
            f"group_size={weight.group_size}, zeros={weight.zero_kind}, "
            f"scales={dtype_name(weight.scales.dtype)}, mode={self.mode}"
        )

    def _tensors(self) -> tuple[torch.Tensor | None, ...]:
        # Attribute access to five buffers would go through Module.__getattr__: 3 us of every call.
        parts = self._buffers
        return parts["qweight"], parts["scales"], parts["zeros"], parts["table"], parts["s0"]

    def _apply(self, fn, recurse: bool = True) -> QuantLinear:
        parts = {part: self._buffers[part] for part in PARTS}
        moved = {part: t if t is None else _moved(t, fn(t)) for part, t in parts.items()}
        self._buffers.update(dict.fromkeys(PARTS))
        try:
            super()._apply(fn, recurse)
            parts = moved
        finally:
            self._buffers.update(parts)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # As a QuantizedWeight, because pickle cannot write float8 tensors (torch 2.13).
        buffers = {name: t for name, t in self._buffers.items() if name not in PARTS}
        return {**self.__dict__, "_buffers": buffers, "_weight": self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        weight = state.pop("_weight")
        buffers = dict(zip(PARTS, weight.tensors, strict=True))
        super().__setstate__({**state, "_buffers": {**buffers, **state["_buffers"]}})

    def _save_to_state_dict(self, destination, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "format"] = torch.tensor(self._format, dtype=torch.int64, device="cpu")
        scales = prefix + "scales"
        destination[scales] = storable_scales(destination[scales])

    def _load_from_state_dict(
        self,
        state_dict,
        prefix,
        local_metadata,
        strict,
        missing_keys,
        unexpected_keys,
        error_msgs,
    ) -> None:
        """Check the weight first, take its settings, then load as every module does."""
        given = {
            key.removeprefix(prefix): t for key, t in state_dict.items() if key.startswith(prefix)
        }
        try:
            weight = self._weight_of(given)
        except (ValueError, TypeError) as error:
            error_msgs.append(f"{prefix}weight: {error}")
            return
        if weight is not None:
            self._make_room_for(weight)
            state_dict[prefix + "scales"] = weight.scales
        elif strict:
            missing_keys.append(prefix + "format")
        state_dict.pop(prefix + "format", None)
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _weight_of(self, given: Mapping[str, torch.Tensor]) -> QuantizedWeight | None:
        """The weight in a state dict, None if it has none; raises unless it and the bias fit."""
        if self.bias is not None and "bias" in given:
            require_shape(_NAME, "bias", given["bias"], self.bias.shape)
        if not any(name in given for name in ("format", *PARTS)):
            return None
        absent = [name for name in _REQUIRED if name not in given]
        if absent:
            refuse(_NAME, "the state dict", f"hold {' and '.join(absent)}", ", ".join(given))
        if given["format"].is_meta:
            remedy = "load the file with map_location='cpu'"
            refuse(_NAME, "format", "be a tensor with data", "a meta tensor", remedy)
        fmt = read_format(_NAME, given["format"])
        if (fmt.n, fmt.k) != self._format[2:4]:
            refuse(_NAME, "weight", f"have shape {list(self._format[2:4])}", [fmt.n, fmt.k])
        return QuantizedWeight.from_tensors(given)

    def _make_room_for(self, weight: QuantizedWeight) -> None:
        """Take the format of `weight`; give buffers that do not match its parts new memory."""
        self._format, device = weight.format, self.qweight.device
        for part, new in zip(PARTS, weight.tensors, strict=True):
            old = self._buffers[part]
            if new is None:
                self._buffers[part] = None
            elif old is None or (old.shape, old.dtype) != (new.shape, new.dtype):
                self._buffers[part] = torch.empty_like(new, device=device)


def _bias_parameter(
    bias: torch.Tensor | None, weight: QuantizedWeight
) -> torch.nn.Parameter | None:
    if bias is None or isinstance(bias, torch.nn.Parameter):
        parameter = bias
    elif isinstance(bias, torch.Tensor) and bias.is_floating_point():
        parameter = torch.nn.Parameter(bias.detach())
    else:
        got = getattr(bias, "dtype", type(bias).__name__)
        refuse(_NAME, "bias", "be a floating-point tensor or None", got, error=TypeError)
    if parameter is not None:
        require_shape(_NAME, "bias", parameter, (weight.format.n,))
        require_device(_NAME, "bias", parameter, weight.device)
    return parameter


def _moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """What a move makes of a part; of a cast only the move is taken."""
    return after if after.dtype == before.dtype else before.to(after.device)
