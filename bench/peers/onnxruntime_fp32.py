"""onnxruntime's MatMulNBits at accuracy level 0: float32 activations."""

from lowbit.bench.cases import LINEAR
from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _onnxruntime

NAME = "onnxruntime fp32"
OPS = (LINEAR,)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can.

    Codes of other widths are dequantized whole in every call: no kernel, and no peer.
    """
    return _onnxruntime.unsupported(workload, (4,))


def prepare(workload: Workload) -> Entry:
    """Our codes, with scales in float32."""
    return _onnxruntime.prepare(NAME, workload, _onnxruntime.FLOAT32)
