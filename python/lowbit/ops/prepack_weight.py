"""prepack_weight: canonical codes in a packed layout, in which kernels read them fastest."""

from typing import NamedTuple

import torch

from lowbit import registry
from lowbit.errors import refuse
from lowbit.formats.layouts import pack_words
from lowbit.formats.memory import empty_on_huge_pages
from lowbit.formats.weight_format import (
    CANONICAL,
    LAYOUTS,
    PANELS,
    WeightFormat,
    check_codes,
    check_format,
    read_format,
    require_layout,
)
from lowbit.formats.weights import QuantizedWeight, require_quantized
from lowbit.ops.unpack_weight import unpack
from lowbit.ops.weight_only_linear import fastest_layout

NAME = "prepack_weight"
# The format is that of the argument; `layout` numbers the one to make.
INPUTS = "Tensor qweight, int[] format, int layout"


class Problem(NamedTuple):
    """What the capability rows of this op are matched with."""

    device: torch.device
    layout: str


def problem(qweight, format, layout) -> Problem:
    return Problem(qweight.device, LAYOUTS[layout])


def check(qweight, format, layout) -> None:
    fmt = read_format(NAME, format)
    check_format(NAME, fmt)
    require_layout(NAME, fmt, "canonical")
    check_codes(NAME, qweight, fmt)
    if not PANELS <= layout < len(LAYOUTS):
        refuse(NAME, "layout", f"be in {PANELS}..{len(LAYOUTS) - 1}", layout)


def allocate(qweight, format, layout) -> torch.Tensor:
    shape = WeightFormat(*format)._replace(layout=layout).code_shape
    return empty_on_huge_pages(qweight, shape) if layout == PANELS else qweight.new_empty(shape)


def reference(qweight, format, layout, out) -> None:
    pack_words(qweight, WeightFormat(*format), layout, out)


def flatten(qweight: QuantizedWeight, layout: str | None = None) -> tuple:
    require_quantized(NAME, "qweight", qweight)
    layout = _layout_for(qweight, layout)
    args = qweight.qweight, qweight.format, LAYOUTS.index(layout)
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
_prepack = OP.overload


def prepack(qweight: QuantizedWeight, layout: str | None = None) -> QuantizedWeight:
    """The same weight in the layout in which kernels read it fastest.

    layout: "panels", the order of CPU kernels, "fragments", that of tensor cores, "canonical", or
    None for the one that the kernels of the weight's own device read fastest; "canonical" if there
    are none.
    Codes are packed anew, panels on huge pages; scales and zeros follow; table, s0 and permutation
    are shared. The weight itself is left as it is: drop it to have its memory back. `lowbit.unpack`
    is the exact inverse. A weight in the layout asked for is returned as it is.
    Raises TypeError for something that is not a QuantizedWeight, ValueError for another layout.
    """
    require_quantized(NAME, "qweight", qweight)
    layout = _layout_for(qweight, layout)
    if qweight.layout == layout:
        return qweight
    canonical = unpack(qweight)
    if layout == LAYOUTS[CANONICAL]:
        return canonical
    return qweight.with_codes(_prepack(*flatten(canonical, layout)), layout)


def _layout_for(qweight: QuantizedWeight, layout: str | None) -> str:
    if layout is None:
        return fastest_layout(qweight.device, qweight)
    if layout not in LAYOUTS:
        refuse(NAME, "layout", f"be None or one of {', '.join(LAYOUTS)}", repr(layout))
    return layout
