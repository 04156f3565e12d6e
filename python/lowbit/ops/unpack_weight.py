"""unpack_weight: codes from the layout "panels" back in canonical planes."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.formats.panels import unpack_panels
from lowbit.formats.weight_format import (
    CANONICAL,
    LAYOUTS,
    WeightFormat,
    check_codes,
    check_format,
    read_format,
    require_layout,
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
    require_layout(NAME, fmt, "panels")
    check_codes(NAME, qweight, fmt)


def allocate(qweight, format) -> torch.Tensor:
    return qweight.new_empty(WeightFormat(*format)._replace(layout=CANONICAL).code_shape)


def reference(qweight, format, out) -> None:
    fmt = WeightFormat(*format)
    unpack_panels(qweight, fmt.bits, fmt.k, fmt.block_k, out)


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
_COVERS = {"layout": ("panels",)}
OP.add_kernel(registry.Kernel("cpu", _COVERS, "measured on Intel Xeon (AVX-512)"))
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
