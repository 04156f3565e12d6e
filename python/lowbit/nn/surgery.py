"""quantize_model: replace the linears of a model by QuantLinears, and name those that must stay."""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch.nn.parameter import is_lazy

from lowbit.errors import dtype_name, refuse
from lowbit.formats.memory import byte_range
from lowbit.formats.numerics import check_mode
from lowbit.formats.quantize import check_quantizable
from lowbit.nn.linear import QuantLinear, require_rank
from lowbit.nn.report import QuantizationReport, QuantizedLayer, progress_bar
from lowbit.ops.weight_only_linear import X_DTYPES

_NAME = "quantize_model"
DEFAULT_SKIP = ("lm_head",)
# Their forward reads the weight tensors of their linears instead of calling the linears (torch's
# fused attention and the fast path of the encoder layer).
_WEIGHT_READERS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclasses.dataclass
class _Found:
    """A linear of the model under all its names, with the modules that hold it."""

    module: torch.nn.Module
    names: list[str]
    parents: list[torch.nn.Module]


def quantize_model(
    model: torch.nn.Module,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    element: str | torch.Tensor = "uint",
    scale_dtype: torch.dtype | None = None,
    search: str = "none",
    rank: int = 0,
    mode: str | None = None,
    prepack: bool = True,
    skip: str | Iterable[str] | None = DEFAULT_SKIP,
    progress: bool = True,
) -> torch.nn.Module:
    """Replace every nn.Linear in `model` that may be replaced by a QuantLinear, in place.

    bits, group_size, symmetric, element, scale_dtype, search: as in quantize_weight. rank: that of
    a trainable low-rank pair in each layer, which starts as the best correction of the quantized
    weight. mode: the numeric mode of the new layers. prepack: in the layout that the kernels of
    their device read fastest. rank, mode and prepack are those of QuantLinear.from_linear.
    skip: patterns of layers to leave alone. A pattern skips a module, and all below it, whose last
    name component equals it or whose full name matches it in the manner of fnmatch: "lm_head",
    "encoder.layer.0", "*.attention.*". progress: a bar on stderr.

    Returns `model` with a QuantizationReport as `model.lowbit_report`. Each layer is quantized and
    packed on its device, and its float weight is dropped before the next one. A module that stands
    under several names is quantized once and stays one module. Left alone, and named in the report
    with the reason: layers that are quantized, subclasses of Linear, and linears
    * whose weight the parent reads (MultiheadAttention, TransformerEncoderLayer), is computed
      (parametrizations, weight_norm, pruning), shares memory with another parameter, is on the meta
      device or is no plain float tensor;
    * with hooks, a forward of their own or more tensors, which would be lost.
    A reference to a linear other than as a submodule keeps the float layer.

    Raises ValueError for a skip pattern (other than "lm_head") that matches no module, and all that
    quantize_weight raises; nothing is changed then. Warns when there was nothing to replace.
    """
    options = {
        "bits": bits,
        "group_size": group_size,
        "symmetric": symmetric,
        "element": element,
        "scale_dtype": scale_dtype,
        "search": search,
    }
    making = {"rank": rank, "mode": mode, "prepack": prepack}
    _check_model(model)
    targets, skipped = _plan(model, _patterns(skip))
    _check_before_any_change(targets, options, rank, mode)
    if not targets:
        warnings.warn(f"{_NAME}: no linear layer was quantized", stacklevel=2)
    before = _bytes_of(model)
    layers = tuple(_replace(targets, options | making, progress))
    model.lowbit_report = QuantizationReport(layers, skipped, before, _bytes_of(model))
    return model


def _check_model(model: torch.nn.Module) -> None:
    if not isinstance(model, torch.nn.Module):
        refuse(_NAME, "model", "be a torch.nn.Module", type(model).__name__, error=TypeError)
    if isinstance(model, torch.nn.Linear):
        remedy = "use lowbit.nn.QuantLinear.from_linear"
        refuse(_NAME, "model", "contain its linears", "a Linear itself", remedy, TypeError)


def _patterns(skip: str | Iterable[str] | None) -> tuple[str, ...]:
    patterns = (skip,) if isinstance(skip, str) else tuple(skip or ())
    for pattern in patterns:
        if not isinstance(pattern, str):
            refuse(_NAME, "skip", "hold names or patterns", repr(pattern), error=TypeError)
    return patterns


def _plan(model: torch.nn.Module, skip: tuple[str, ...]) -> tuple[list[_Found], dict[str, str]]:
    """(the linears to replace, name -> reason of the others). Changes nothing."""
    _check_patterns(model, skip)
    ties = _ties(model)
    targets, skipped = [], {}
    for found in _linears(model):
        reason = _skip_reason(found, skip) or _keep_reason(found, ties)
        if reason is None:
            targets.append(found)
        else:
            skipped.update(dict.fromkeys(found.names, reason))
    return targets, skipped


def _linears(model: torch.nn.Module) -> Iterator[_Found]:
    by_id: dict[int, _Found] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (torch.nn.Linear, QuantLinear)) and name:
            found = by_id.setdefault(id(module), _Found(module, [], []))
            found.names.append(name)
            found.parents.append(model.get_submodule(name.rpartition(".")[0]))
    return iter(by_id.values())


def _check_patterns(model: torch.nn.Module, skip: tuple[str, ...]) -> None:
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for pattern in skip:
        if pattern not in DEFAULT_SKIP and not any(_matches(name, pattern) for name in names):
            refuse(_NAME, "skip", "hold patterns that match a module", repr(pattern))


def _matches(name: str, pattern: str) -> bool:
    """Whether the pattern names this very module."""
    return name.rpartition(".")[2] == pattern or fnmatch.fnmatchcase(name, pattern)


def _skip_reason(found: _Found, skip: tuple[str, ...]) -> str | None:
    for name in found.names:
        parts = name.split(".")
        prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
        for pattern in skip:
            if any(_matches(prefix, pattern) for prefix in prefixes):
                return f"skip={pattern!r}"
    return None


def _keep_reason(found: _Found, ties: dict[str, str]) -> str | None:
    """Why a linear that nobody asked to skip must stay; None if it may be replaced."""
    module = found.module
    if isinstance(module, QuantLinear):
        return "it is quantized"
    for parent in found.parents:
        if isinstance(parent, _WEIGHT_READERS):
            return f"{type(parent).__name__} reads its weight"
    if module._parameters.get("weight") is None:
        return "its weight is computed (a parametrization, weight_norm or pruning)"
    if type(module) is not torch.nn.Linear:
        return f"it is a {type(module).__name__}, a subclass of Linear"
    if module.weight.is_meta:
        return "its weight is on the meta device"
    tie = ties.get(f"{found.names[0]}.weight")
    return _lost_reason(module) or _weight_reason(module.weight, tie)


def _lost_reason(module: torch.nn.Linear) -> str | None:
    """What of the module a replacement would lose."""
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "it has hooks, which would be lost"
    if "forward" in vars(module):
        return "its forward was replaced"
    own = {*module._parameters, *module._buffers, *module._modules}
    if own != {"weight", "bias"}:
        return f"it holds more than weight and bias: {', '.join(sorted(own - {'weight', 'bias'}))}"
    return None


def _weight_reason(weight: torch.nn.Parameter, tie: str | None) -> str | None:
    if type(weight) is not torch.nn.Parameter:
        return f"its weight is a {type(weight).__name__}"
    if weight.dtype not in X_DTYPES:  # a model of another dtype would feed x that the op refuses
        return f"its weight is {dtype_name(weight.dtype)}"
    if not weight.shape[1]:
        return "it has no columns"
    return f"its weight shares memory with {tie}" if tie else None


def _ties(model: torch.nn.Module) -> dict[str, str]:
    """Name of a parameter -> name of another one that overlaps it in memory."""
    pieces = []
    for prefix, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is None or is_lazy(parameter):
                continue
            if parameter.numel() and _address(parameter):
                name = f"{prefix}.{key}" if prefix else key
                pieces.append((str(parameter.device), *byte_range(parameter), name))
    ties, last = {}, ("", 0, 0, "")
    for piece in sorted(pieces):
        # `last` reaches furthest of those before, so whatever overlaps an earlier one overlaps it.
        if piece[0] == last[0] and piece[1] < last[2]:
            ties.setdefault(piece[3], last[3])
            ties.setdefault(last[3], piece[3])
        last = max(last, piece, key=lambda p: (p[0], p[2]))
    return ties


def _address(tensor: torch.Tensor) -> int:
    """Where the tensor's memory starts; 0 for one without memory of its own to compare."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return tensor.data_ptr() if plain and not tensor.is_meta else 0


def _check_before_any_change(
    targets: list[_Found], options: dict, rank: int, mode: str | None
) -> None:
    check_mode(_NAME, mode)
    require_rank(_NAME, rank)
    check_quantizable(torch.zeros(1, 1), **options)
    for found in targets:
        try:
            check_quantizable(found.module.weight, **options)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{found.names[0]}: {error}") from None


def _replace(targets: list[_Found], options: dict, progress: bool):
    with progress_bar(len(targets), progress) as step:
        while targets:
            found = targets.pop(0)
            step(found.names[0])
            yield _replace_one(found, options)


def _replace_one(found: _Found, options: dict) -> QuantizedLayer:
    """Quantize one linear; its float weight is free when this returns."""
    linear = found.module
    module = QuantLinear.from_linear(linear, **options)
    for name, parent in zip(found.names, found.parents, strict=True):
        setattr(parent, name.rpartition(".")[2], module)
    return QuantizedLayer(
        found.names[0],
        module.in_features,
        module.out_features,
        linear.weight.nbytes,
        module.weight.nbytes + sum(side.nbytes for side in module.low_rank or ()),
    )


def _bytes_of(model: torch.nn.Module) -> int:
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)]
    sizes = {(t.device, _address(t) or id(t)): t.nbytes for t in tensors}
    return sum(sizes.values())
