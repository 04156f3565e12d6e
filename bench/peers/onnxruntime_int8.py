"""onnxruntime's MatMulNBits at accuracy level 4: activations in int8, a scale for each group."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _onnxruntime

NAME = "onnxruntime int8"
OPS = (LINEAR,)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    reason = _onnxruntime.unsupported(workload, (2, 4, 8))
    if not reason and workload.weight.bits == 2 and _onnxruntime.version() < (1, 28):
        reason = "its kernels of 2 bits came with version 1.28"
    return reason


def prepare(workload: Workload) -> Entry:
    """Our codes, with scales in float32."""
    return _onnxruntime.prepare(NAME, workload, _onnxruntime.INT8)
