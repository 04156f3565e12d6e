"""unpack_weight: codes from a packed layout back in canonical planes."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.formats.layouts import Parts, parts_with_codes, unpack_words
from lowbit.formats.weight_format import (
    CANONICAL,
    LAYOUTS,
    WeightFormat,
    check_codes,
    check_format,
    read_format,
    require_packed,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized

NAME = "unpack_weight"
# The format is that of the argument.
INPUTS = "Tensor qweight, int[] format"


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    layout: str


def problem(qweight, format) -> Problem:
    return Problem(qweight.device, LAYOUTS[format[7]])


def check(qweight, format) -> None:
    fmt = read_format(NAME, format)
    check_format(NAME, fmt)
    require_packed(NAME, fmt)
    check_codes(NAME, qweight, fmt)


def allocate(qweight, format) -> torch.Tensor:
    return qweight.new_empty(WeightFormat(*format)._replace(layout=CANONICAL).code_shape)


def reference(qweight, format, out) -> None:
    unpack_words(qweight, WeightFormat(*format), out)


def flatten(qweight: QuantizedWeight) -> tuple:
    require_quantized(NAME, "qweight", qweight)
    args = qweight.qweight, qweight.format
    check(*args)
    return args


OP = registry.Op(
    NAME,
    INPUTS,
    check=check,
    allocate=allocate,
    reference=reference,
    problem=problem,
    flatten=flatten,
)
# A device has kernels for the layout that it multiplies. The reference does for others, which only
# weights that come from elsewhere or go there are in.
_PANELS, _FRAGMENTS = {"layout": ("panels",)}, {"layout": ("fragments",)}
OP.add_kernel(registry.Kernel("cpu", _PANELS, "measured on Intel Xeon (AVX-512)", made_for=_PANELS))
OP.add_kernel(registry.Kernel("cuda", _FRAGMENTS, "modelled, compiled", made_for=_FRAGMENTS))
_unpack = OP.overload


def unpack(qweight: QuantizedWeight) -> QuantizedWeight:
    """The same weight in the canonical layout: the exact inverse of `lowbit.prepack`.

    Padding bits of the codes are zero. A canonical weight is returned as it is.
    Raises TypeError for something that is not a QuantizedWeight.
    """
    require_quantized(NAME, "qweight", qweight)
    if qweight.layout == "canonical":
        return qweight
    return qweight.with_codes(_unpack(*flatten(qweight)), "canonical")


def unpack_parts(tensors: Parts, fmt: WeightFormat) -> tuple[Parts, WeightFormat]:
    """unpack for a weight given as (qweight, scales, zeros, table, s0) and its format."""
    if fmt.layout == CANONICAL:
        return tensors, fmt
    return parts_with_codes(_unpack(tensors[0], tuple(fmt)), tensors, fmt, CANONICAL)
