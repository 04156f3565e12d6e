"""OpenVINO with activations in int8, a scale for each group of columns."""

import math

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _openvino

NAME = "openvino int8"
OPS = (LINEAR,)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    reason = _openvino.unsupported(workload)
    # Its int8 kernels take activations in blocks of whole vectors (useDynamicQuantizationImpl).
    if not reason and workload.weight.group_size % 16:
        reason = "it takes groups of a multiple of 16"
    return reason


def prepare(workload: Workload) -> Entry:
    """Our codes, and activations in blocks of 128 or of a group.

    A block that is no part of a group turns int8 off; shorter blocks take up to twice the time, and
    longer ones are no faster. The hint is f32 since the plugin does not quantize what it has
    rounded to bfloat16 already.
    """
    block = math.gcd(workload.weight.group_size, 128)
    return _openvino.prepare(NAME, workload, "f32", block)
