"""onnxruntime's MatMulNBits on our codes, scales and zero points.

The packed weight belongs to the session; cold copies are further nodes of one model.
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

    def graph(count: int) -> _Run:
        return _Run([packed.rolled(i) for i in range(count)], x, accuracy)

    return Entry(
        name,
        lambda run: run(),
        (graph(1),),
        packed.dequantized(k),
        graph=graph,
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


def _model(weights: list[Packed], rows: int, k: int, accuracy: int) -> bytes:
    """A product of the input x for each weight, with the results y0, y1, and so on."""
    from onnx import TensorProto, helper, numpy_helper

    n, number = len(weights[0].scales), TensorProto.FLOAT
    nodes, results, constants = [], [], []
    for i, packed in enumerate(weights):
        parts = {f"codes{i}": packed.codes, f"scales{i}": packed.scales.flatten()}
        if packed.zeros is not None:
            parts[f"zeros{i}"] = packed.zeros.flatten()
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                ["x", *parts],
                [f"y{i}"],
                domain="com.microsoft",
                N=n,
                K=k,
                bits=packed.bits,
                block_size=packed.group,
                accuracy_level=accuracy,
            )
        )
        results.append(helper.make_tensor_value_info(f"y{i}", number, [rows, n]))
        constants += [numpy_helper.from_array(part.numpy(), name) for name, part in parts.items()]
    inputs = [helper.make_tensor_value_info("x", number, [rows, k])]
    graph = helper.make_graph(nodes, "linear", inputs, results, constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return model.SerializeToString()


class _Run:
    """A session with its weights, bound to x and to memory for the results: no call copies them."""

    def __init__(self, weights: list[Packed], x: torch.Tensor, accuracy: int):
        import numpy
        import onnxruntime

        rows, k, n = x.shape[:-1], x.shape[-1], len(weights[0].scales)
        self._x, self.results = x, [torch.empty(*rows, n) for _ in weights]
        model = _model(weights, rows.numel(), k, accuracy)
        self._session = onnxruntime.InferenceSession(
            model, _options(), providers=["CPUExecutionProvider"]
        )
        self._binding, number = self._session.io_binding(), numpy.float32
        self._binding.bind_input("x", "cpu", 0, number, [rows.numel(), k], x.data_ptr())
        for i, y in enumerate(self.results):
            shape = [rows.numel(), n]
            self._binding.bind_output(f"y{i}", "cpu", 0, number, shape, y.data_ptr())

    @property
    def threads(self) -> int:
        """Threads of the session, the caller's among them."""
        return self._session.get_session_options().intra_op_num_threads

    def __call__(self) -> torch.Tensor:
        self._session.run_with_iobinding(self._binding)
        return self.results[0]


def _options():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Workers spin within a run, where sleep would cost a wake-up for each product; by default they
    # do so for some 25 ms after it too, in the way of whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
