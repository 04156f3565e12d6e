"""QuantLinear: nn.Linear with a quantized weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lowbit.errors import dtype_name, refuse, require_device, require_integer, require_shape
from lowbit.formats.numerics import check_mode
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.weight_format import PARTS
from lowbit.formats.weights import QuantizedWeight, require_quantized
from lowbit.nn.low_rank import best_pair, fresh_pair
from lowbit.nn.weight_module import WeightModule
from lowbit.ops.weight_only_linear import linear_of_parts

_NAME = "QuantLinear"
_PAIR = ("low_rank_a", "low_rank_b")


class QuantLinear(WeightModule):
    """y[..., N] = x[..., K] @ weight.T + (x @ A.T) @ B.T + bias: weight_only_linear as a module.

    The parts of the weight are buffers: qweight, scales and, where the weight has them, zeros,
    table, s0 and permutation. bias[N] and the low-rank pair low_rank_a [r, K], low_rank_b [N, r]
    are Parameters or None. x: float32, float16 or bfloat16; bias and pair: x's dtype or float32.
    Gradients reach x, bias and pair. A factor like LoRA's alpha / r belongs into B.

    prepack: hold the weight in the layout that the kernels of the device read fastest ("panels" on
    the CPU, canonical elsewhere), from the start and again after loads and moves to another
    device. The canonical tensors are not kept. False: in the layout given. `prepack()` and
    `unpack()` change it later.

    Casts of the module (half(), bfloat16(), to(dtype), type()) cast bias and pair alone, because a
    cast of codes or scales would change the weight. Moves (to(device), to_empty, share_memory) move
    all.

    The state dict holds the canonical weight, bias, pair and `format`, the int64 integers of the
    WeightFormat, so that strict loading, safetensors and torch.load(weights_only=True) need nothing
    else; while the weight is packed, its codes and scales are copies. Loading takes the settings of
    the file: an int8 file loads into a module made for int4 when the sizes agree, a pair of another
    rank replaces the Parameters, and tensors of the same shape and dtype are written in place. A
    file of another size or of a newer format_version is refused, and such a refusal leaves the
    module as it was. (Missing and unexpected keys are torch's business: it reports them after it
    has loaded the others.) `mode` and `prepack` say how to compute and are not saved.

    mode: the numeric mode (docs/numerics.md), also an attribute; None is the default for x.
    Raises TypeError or ValueError when weight, bias, pair or mode do not fit. A part that is a view
    into larger memory (a slice) is copied; parts that need no other layout are kept as they are.
    """

    def __init__(
        self,
        weight: QuantizedWeight,
        bias: torch.Tensor | None = None,
        mode: str | None = None,
        *,
        low_rank: tuple[torch.Tensor, torch.Tensor] | None = None,
        prepack: bool = True,
    ):
        require_quantized(_NAME, "weight", weight)
        check_mode(_NAME, mode)
        bias = _parameter("bias", bias, (weight.format.n,), weight.device)
        pair = _pair_of(low_rank, weight)
        super().__init__(weight, prepack)
        self.mode = mode
        self.register_parameter("bias", bias)
        for name, parameter in zip(_PAIR, pair, strict=True):
            self.register_parameter(name, parameter)

    @classmethod
    def from_linear(
        cls,
        linear: torch.nn.Linear,
        *,
        mode: str | None = None,
        rank: int = 0,
        prepack: bool = True,
        **options: Any,
    ) -> QuantLinear:
        """Quantize the weight of a Linear; `options` are those of quantize_weight.

        rank: that of a low-rank pair to make up for the error of quantization as far as it can (at
        most the smaller side of the weight); 0: no pair. The pair has the dtype of the weight.
        The bias is the same Parameter, and the module is in training mode if `linear` is.
        Raises what quantize_weight raises, and TypeError for another module.
        """
        where = f"{_NAME}.from_linear"
        if not isinstance(linear, torch.nn.Linear):
            got = type(linear).__name__
            refuse(where, "linear", "be a torch.nn.Linear", got, error=TypeError)
        require_rank(where, rank)
        weight, pair = quantize_weight(linear.weight, **options), None
        if rank:
            error = linear.weight.detach().float() - weight.dequantize()
            pair = tuple(side.to(linear.weight.dtype) for side in best_pair(error, rank))
        module = cls(weight, linear.bias, mode, low_rank=pair, prepack=prepack)
        return module.train(linear.training)

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mode: str | None = None,
        prepack: bool = True,
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
        parts = {
            name: part if part is None or name in ("table", "s0") else part.repeat(out_features, 1)
            for name, part in zip(PARTS, row.parts, strict=True)
        }
        weight = QuantizedWeight(**parts, format=row.format._replace(n=out_features)).to(device)
        zeros = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        return cls(weight, zeros, mode, prepack=prepack)

    def add_low_rank(self, rank: int, dtype: torch.dtype = torch.float32) -> QuantLinear:
        """Give the module a new low-rank pair to train, as LoRA starts; returns the module.

        A is random and B zero, so the module computes what it computed without a pair. A pair that
        is there is replaced. For x of another dtype than float32, `dtype` may be that one.
        """
        require_rank(f"{_NAME}.add_low_rank", rank)
        n, k, device = self.out_features, self.in_features, self.qweight.device
        pair = _pair_of(fresh_pair(n, k, rank, dtype, device), self.weight)
        self.low_rank_a, self.low_rank_b = pair
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias, low_rank = self._addends()
        return linear_of_parts(x, self._parts(), bias, low_rank, self._format, self.mode)

    @property
    def low_rank(self) -> tuple[torch.nn.Parameter, torch.nn.Parameter] | None:
        """The pair (low_rank_a, low_rank_b), None without one."""
        return self._addends()[1]

    def _addends(self):
        own = self._parameters  # quicker than Module.__getattr__, as with the parts
        try:
            bias, low_rank_a, low_rank_b = own["bias"], own["low_rank_a"], own["low_rank_b"]
        except KeyError:  # parametrizations and sharding put attributes in the place of Parameters
            bias, low_rank_a, low_rank_b = self.bias, self.low_rank_a, self.low_rank_b
        return bias, None if low_rank_a is None else (low_rank_a, low_rank_b)

    def extra_repr(self) -> str:
        weight = self.weight
        element = "uint" if weight.table is None else "table"
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {element}{weight.bits}, "
            f"group_size={weight.group_size}, zeros={weight.zero_kind}, "
            f"scales={dtype_name(weight.scales.dtype)}, layout={weight.layout}"
        )
        text += ", permuted" if weight.permutation is not None else ""
        text += f", rank={len(self.low_rank_a)}" if self.low_rank_a is not None else ""
        return text if self.mode is None else f"{text}, mode={self.mode}"

    def _check_others(self, given: Mapping[str, torch.Tensor]) -> None:
        if self.bias is not None and "bias" in given:
            require_shape(_NAME, "bias", given["bias"], self.bias.shape)
        present = [name for name in _PAIR if name in given]
        if len(present) == 1:
            refuse(_NAME, "the state dict", f"hold both of {' and '.join(_PAIR)}", present[0])
        if present:
            rank = given["low_rank_a"].shape[:1]
            require_shape(_NAME, "low_rank_a", given["low_rank_a"], (*rank, self.in_features))
            require_shape(_NAME, "low_rank_b", given["low_rank_b"], (self.out_features, *rank))

    def _make_room_for_others(self, given: Mapping[str, torch.Tensor]) -> None:
        for name in _PAIR:
            own, new = getattr(self, name), given.get(name)
            if new is not None and (own is None or own.shape != new.shape):
                dtype = new.dtype if own is None else own.dtype
                room = torch.empty_like(new, dtype=dtype, device=self.qweight.device)
                setattr(self, name, torch.nn.Parameter(room))


def require_rank(where: str, rank: Any) -> None:
    """TypeError or ValueError unless it is an integer of at least 0."""
    require_integer(where, "rank", rank)
    if rank < 0:
        refuse(where, "rank", "be at least 0", rank)


def _pair_of(low_rank, weight: QuantizedWeight) -> tuple[torch.nn.Parameter | None, ...]:
    if low_rank is None:
        return None, None
    pair = isinstance(low_rank, (tuple, list)) and len(low_rank) == 2
    if not pair or any(side is None for side in low_rank):
        kinds = [type(side).__name__ for side in low_rank] if pair else type(low_rank).__name__
        refuse(_NAME, "low_rank", "be a pair A [r, K], B [N, r] of tensors", kinds, error=TypeError)
    n, k = weight.shape
    rank = getattr(low_rank[0], "shape", ())[:1]
    shapes = (*rank, k), (n, *rank)
    return tuple(
        _parameter(name, side, shape, weight.device)
        for name, side, shape in zip(_PAIR, low_rank, shapes, strict=True)
    )


def _parameter(
    name: str, tensor: torch.Tensor | None, shape: tuple[int, ...], device: torch.device
) -> torch.nn.Parameter | None:
    """A Parameter of these values, itself if it is one; refuses what does not fit."""
    if tensor is None:
        return None
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        got = getattr(tensor, "dtype", type(tensor).__name__)
        refuse(_NAME, name, "be a floating-point tensor or None", got, error=TypeError)
    require_shape(_NAME, name, tensor, shape)
    require_device(_NAME, name, tensor, device)
    return tensor if isinstance(tensor, torch.nn.Parameter) else torch.nn.Parameter(tensor.detach())
