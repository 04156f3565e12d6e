"""prepack_weight: canonical codes in the layout "panels", which the CPU kernels read."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.formats.memory import empty_on_huge_pages
from lowbit.formats.panels import pack_panels
from lowbit.formats.weight_format import (
    LAYOUTS,
    PANELS,
    WeightFormat,
    check_codes,
    check_format,
    read_format,
    require_layout,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized

NAME = "prepack_weight"
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
    require_layout(NAME, fmt, "canonical")
    check_codes(NAME, qweight, fmt)


def allocate(qweight, format) -> torch.Tensor:
    packed = WeightFormat(*format)._replace(layout=PANELS)
    return empty_on_huge_pages(qweight, packed.code_shape)


def reference(qweight, format, out) -> None:
    fmt = WeightFormat(*format)
    pack_panels(qweight, fmt.bits, fmt.k, fmt.block_k, out)


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
_COVERS = {"layout": ("canonical",)}
OP.add_kernel(registry.Kernel("cpu", _COVERS, "measured on Intel Xeon (AVX-512)"))
_prepack = OP.overload


def prepack(qweight: QuantizedWeight) -> QuantizedWeight:
    """The same weight in the layout "panels", in which the CPU kernels read it fastest.

    Codes are packed anew, on huge pages; scales and zeros follow; table, s0 and permutation are
    shared. The canonical weight is left as it is: drop it to have its memory back. `lowbit.unpack`
    is the exact inverse. A weight in panels is returned as it is.
    Raises TypeError for something that is not a QuantizedWeight.
    """
    require_quantized(NAME, "qweight", qweight)
    if qweight.layout == "panels":
        return qweight
    return qweight.with_codes(_prepack(*flatten(qweight)), "panels")
