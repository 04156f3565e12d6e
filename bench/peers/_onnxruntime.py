"""onnxruntime's MatMulNBits: our codes, scales and zero points in a model of one node.

The packed weight belongs to the session, so each cold copy is a session of its own.
"""

from __future__ import annotations

import torch

from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _affine
from lowbit.bench.peers._affine import Affine, Packed
from lowbit.bench.peers._packages import missing

# Group sizes of its blocked kernels (MlasIsQNBitGemmAvailable); others are dequantized whole in
# every call.
_GROUPS = (16, 32, 64, 128, 256)
# What the CPU does with it: accuracy_level 4 permits activations in int8, blocks of a group each;
# 0 leaves float32 x alone.
FLOAT32, INT8 = 0, 4
_OPSET, _IR_VERSION = 17, 8


def unsupported(workload: Workload, bits: tuple[int, ...]) -> str | None:
    """Why the workload cannot be run; None if it can."""
    reason = missing("onnxruntime", "onnx") or _affine.unsupported(workload, bits)
    if not reason and workload.weight.group_size not in _GROUPS:
        reason = f"it takes groups of {', '.join(map(str, _GROUPS))}"
    return reason or _affine.fractional_zeros(workload)


def version() -> tuple[int, int]:
    """Major and minor number of the library."""
    import onnxruntime

    major, minor = onnxruntime.__version__.split(".")[:2]
    return int(major), int(minor)


def prepare(name: str, workload: Workload, accuracy: int) -> Entry:
    """x in float32, beside the codes and the scales in float32."""
    n, k = workload.weight.shape
    packed = Packed.of(Affine.of(workload.weight), zero_rows=n)
    x = workload.x.float().contiguous()
    model = _model(packed, x.numel() // k, k, accuracy)

    def another() -> tuple[_Product]:
        return (_Product(model, x, n),)

    return Entry(
        name,
        lambda product: product(),
        another(),
        packed.dequantized(k),
        another=another,
        nbytes=_bytes_read(packed, accuracy),
        arithmetic="int8" if accuracy == INT8 else "fp32",
    )


def _bytes_read(packed: Packed, accuracy: int) -> int:
    """The int8 kernels have a float32 number zero * scale for each group in place of zero points.

    They have it without zero points too (Q4BitGemmPackQuantBDataSize of mlas).
    """
    zeros = 0 if packed.zeros is None else packed.zeros.nbytes
    beside = packed.scales.nbytes if accuracy == INT8 else zeros
    return packed.codes.nbytes + packed.scales.nbytes + beside


def _model(packed: Packed, m: int, k: int, accuracy: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    n = packed.scales.shape[0]
    weight = {"codes": packed.codes, "scales": packed.scales.flatten()}
    if packed.zeros is not None:
        weight["zeros"] = packed.zeros.flatten()
    numbers = {"N": n, "K": k, "bits": packed.bits, "block_size": packed.group}
    node = helper.make_node(
        "MatMulNBits",
        ["x", *weight],
        ["y"],
        domain="com.microsoft",
        accuracy_level=accuracy,
        **numbers,
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [m, k]), ("y", [m, n]))
    ]
    constants = [numpy_helper.from_array(t.numpy(), name) for name, t in weight.items()]
    graph = helper.make_graph([node], "linear", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION
    ).SerializeToString()


class _Product:
    """A session with its weight, bound to x and to memory for the result: a call copies nothing."""

    def __init__(self, model: bytes, x: torch.Tensor, n: int):
        import numpy
        import onnxruntime

        rows = x.shape[:-1]
        self._x, self._y = x, torch.empty(*rows, n)
        self._session = onnxruntime.InferenceSession(
            model, _options(), providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        shapes = [rows.numel(), x.shape[-1]], [rows.numel(), n]
        self._binding.bind_input("x", "cpu", 0, numpy.float32, shapes[0], x.data_ptr())
        self._binding.bind_output("y", "cpu", 0, numpy.float32, shapes[1], self._y.data_ptr())

    @property
    def threads(self) -> int:
        """Threads of the session, the caller's among them."""
        return self._session.get_session_options().intra_op_num_threads

    def __call__(self) -> torch.Tensor:
        self._session.run_with_iobinding(self._binding)
        return self._y


def _options():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Each session has threads of its own. By default they spin for some 25 ms after a run, and
    # those of one session then stand in the way of the next (measured: 11 ms a call in place of
    # 0.7). They may spin within a run, where a wait would cost it a wake-up for each part.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
