"""OpenVINO with activations in bfloat16."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _openvino

NAME = "openvino bf16"
OPS = (LINEAR,)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    reason = _openvino.unsupported(workload)
    if not reason and "BF16" not in _openvino.capabilities():
        reason = "this CPU has no bfloat16"
    return reason


def prepare(workload: Workload) -> Entry:
    """Our codes, multiplied in bfloat16."""
    return _openvino.prepare(NAME, workload, "bf16", 0)
