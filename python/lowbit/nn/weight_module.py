"""WeightModule: a module that keeps a QuantizedWeight as buffers, in the layout of its device."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lowbit.errors import refuse
from lowbit.formats.memory import empty_on_huge_pages, own_memory
from lowbit.formats.weight_format import PARTS, WeightFormat, read_format
from lowbit.formats.weights import QuantizedWeight, storable_scales
from lowbit.ops.prepack_weight import prepack
from lowbit.ops.unpack_weight import unpack
from lowbit.ops.weight_only_linear import fastest_layout

_REQUIRED = ("format", "qweight", "scales")


class WeightModule(torch.nn.Module):
    """The parts of a QuantizedWeight [N, K] as buffers, in whatever layout; None where absent.

    Casts leave the parts alone, moves take them along. With `prepack` the weight is in the layout
    that the kernels of its device read fastest: from the start, after a load and after a move to
    another device. State dicts and pickles hold the canonical layout always.
    """

    qweight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    table: torch.Tensor | None
    s0: torch.Tensor | None
    permutation: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, prepack: bool):
        super().__init__()
        self._prepack = prepack
        weight = self._laid_out(weight, weight.device)
        self._format = weight.format
        for part, tensor in zip(PARTS, weight.parts, strict=True):
            self.register_buffer(part, None if tensor is None else own_memory(tensor.detach()))

    @property
    def weight(self) -> QuantizedWeight:
        """The buffers as a QuantizedWeight, checked; it shares their memory."""
        return _weight_of(self._parts(), self._format)

    @property
    def in_features(self) -> int:
        """K, the columns of the weight."""
        return self._format.k

    @property
    def out_features(self) -> int:
        """N, the rows of the weight."""
        return self._format.n

    def prepack(self):
        """Let the weight be in the layout of its device from now on; returns the module."""
        self._prepack = True
        self._take(self._laid_out(self.weight, self.qweight.device))
        return self

    def unpack(self):
        """Let the weight be in the canonical layout from now on; returns the module."""
        self._prepack = False
        self._take(unpack(self.weight))
        return self

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        # Attribute access to six buffers would go through Module.__getattr__: 3 us of every call.
        parts = self._buffers
        return (
            parts["qweight"],
            parts["scales"],
            parts["zeros"],
            parts["table"],
            parts["s0"],
            parts["permutation"],
        )

    def _take(self, weight: QuantizedWeight) -> None:
        self._format = weight.format
        self._buffers.update(zip(PARTS, weight.parts, strict=True))

    def _laid_out(self, weight: QuantizedWeight, device: torch.device) -> QuantizedWeight:
        """The weight as this module wants it on a device."""
        if not self._prepack or device.type == "meta":
            return weight
        return prepack(weight, fastest_layout(device, weight))

    def _apply(self, fn, recurse: bool = True):
        before, fmt = self._parts(), self._format
        moved = tuple(t if t is None else _moved(t, fn(t)) for t in before)
        if before[0].device != moved[0].device and not before[0].is_meta:
            weight = self._laid_out(_weight_of(moved, fmt), moved[0].device)
            moved, fmt = weight.parts, weight.format
        self._buffers.update(dict.fromkeys(PARTS))
        try:
            super()._apply(fn, recurse)
            before, self._format = moved, fmt
        finally:
            self._buffers.update(zip(PARTS, before, strict=True))
        return self

    def __getstate__(self) -> dict[str, Any]:
        # As a QuantizedWeight, which can be pickled with float8 scales (torch 2.13 fails on those).
        weight: Any = self.weight
        if weight.device.type == "cpu" and weight.qweight.is_shared():
            weight = _Shared(weight.parts, weight.format)
        buffers = {name: t for name, t in self._buffers.items() if name not in PARTS}
        return {**self.__dict__, "_buffers": buffers, "_weight": weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        weight, own = state.pop("_weight"), state["_buffers"]
        super().__setstate__({**state, "_buffers": {**dict.fromkeys(PARTS), **own}})
        self._take(self._laid_out(weight, weight.device))

    def _save_to_state_dict(self, destination, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = unpack(self.weight)
        for part, tensor in zip(PARTS, weight.parts, strict=True):
            if tensor is not None:
                destination[prefix + part] = tensor.detach()
        destination[prefix + "scales"] = storable_scales(weight.scales)
        numbers = torch.tensor(weight.format, dtype=torch.int64, device="cpu")
        destination[prefix + "format"] = numbers

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
            weight = self._weight_in(given)
            self._check_others(given)
        except (ValueError, TypeError) as error:
            error_msgs.append(f"{prefix}weight: {error}")
            return
        self._make_room_for_others(given)
        if weight is not None:
            assign = local_metadata.get("assign_to_params_buffers", False)
            weight = self._laid_out(weight, weight.device if assign else self.qweight.device)
            self._make_room_for(weight)
            parts = zip(PARTS, weight.parts, strict=True)
            state_dict.update({prefix + part: t for part, t in parts if t is not None})
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

    def _weight_in(self, given: Mapping[str, torch.Tensor]) -> QuantizedWeight | None:
        """The weight in a state dict, None if it has none; raises unless it fits."""
        if not any(name in given for name in ("format", *PARTS)):
            return None
        where = type(self).__name__
        absent = [name for name in _REQUIRED if name not in given]
        if absent:
            refuse(where, "the state dict", f"hold {' and '.join(absent)}", ", ".join(given))
        if given["format"].is_meta:
            remedy = "load the file with map_location='cpu'"
            refuse(where, "format", "be a tensor with data", "a meta tensor", remedy)
        fmt = read_format(where, given["format"])
        if (fmt.n, fmt.k) != self._format[2:4]:
            refuse(where, "weight", f"have shape {list(self._format[2:4])}", [fmt.n, fmt.k])
        return QuantizedWeight.from_tensors(given)

    def _check_others(self, given: Mapping[str, torch.Tensor]) -> None:
        """For subclasses: raise unless their own tensors in a state dict fit."""

    def _make_room_for_others(self, given: Mapping[str, torch.Tensor]) -> None:
        """For subclasses: get ready to load their own tensors; must not raise."""

    def _make_room_for(self, weight: QuantizedWeight) -> None:
        """Take the format of `weight`; give buffers that do not match its parts new memory."""
        self._format, device = weight.format, self.qweight.device
        for part, new in zip(PARTS, weight.parts, strict=True):
            old = self._buffers[part]
            if new is None:
                self._buffers[part] = None
            elif old is None or (old.shape, old.dtype) != (new.shape, new.dtype):
                like = torch.empty(0, dtype=new.dtype, device=device)
                self._buffers[part] = empty_on_huge_pages(like, new.shape)


class _Shared:
    """Pickles parts in shared memory as what they are, where a QuantizedWeight gives a copy."""

    def __init__(self, parts: tuple[torch.Tensor | None, ...], fmt: WeightFormat):
        self._state = parts, fmt

    def __reduce__(self):
        parts, fmt = list(self._state[0]), tuple(self._state[1])
        dtype = parts[1].dtype
        if dtype.itemsize == 1:
            parts[1] = parts[1].view(torch.uint8)
        return _from_shared, (parts, dtype, fmt)

    def __deepcopy__(self, memo: dict) -> QuantizedWeight:
        return copy.deepcopy(_weight_of(*self._state), memo)


def _from_shared(parts: list[torch.Tensor | None], dtype: torch.dtype, fmt: tuple[int, ...]):
    parts[1] = parts[1].view(dtype)
    return _weight_of(parts, WeightFormat(*fmt))


def _weight_of(parts: Sequence[torch.Tensor | None], fmt: WeightFormat) -> QuantizedWeight:
    return QuantizedWeight(**dict(zip(PARTS, parts, strict=True)), format=fmt)


def _moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """What a move makes of a part; of a cast only the move is taken."""
    return after if after.dtype == before.dtype else before.to(after.device)
