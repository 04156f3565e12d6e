"""OpenVINO's CPU plugin on a compressed weight: our codes, scales and zero points.

The repacked weight belongs to the compiled model; cold copies are further products in one model.
"""

from __future__ import annotations

import functools

import torch

from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers import _affine
from lowbit.bench.peers._affine import Affine, Packed
from lowbit.bench.peers._packages import missing

_BITS = (4, 8)


def unsupported(workload: Workload) -> str | None:
    """Why the workload cannot be run; None if it can."""
    reason = missing("openvino") or _affine.unsupported(workload, _BITS)
    reason = reason or _affine.fractional_zeros(workload)
    group, k = workload.weight.group_size, workload.weight.shape[1]
    if not reason and (k % group or group % 2):
        reason = "it takes groups of even length that divide K"
    return reason


@functools.cache
def core():
    """The library's one Core."""
    import openvino

    return openvino.Core()


def capabilities() -> tuple[str, ...]:
    """Number formats that its CPU plugin is fast in."""
    return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def prepare(name: str, workload: Workload, precision: str, dynamic_group: int) -> Entry:
    """x in float32, which the plugin rounds as `precision` and `dynamic_group` say.

    precision: "f32" or "bf16". dynamic_group: columns that share a scale of int8 activations; 0 for
    no such quantization.
    """
    packed = Packed.of(Affine.of(workload.weight), zero_rows=1)
    x = workload.x.float().contiguous()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": dynamic_group,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }

    def graph(count: int) -> _Run:
        return _Run([packed.rolled(i) for i in range(count)], x, settings)

    return Entry(
        name,
        lambda run: run(),
        (graph(1),),
        packed.dequantized(x.shape[-1]),
        graph=graph,
        nbytes=_bytes_read(packed, dynamic_group),
        arithmetic="int8" if dynamic_group else precision.replace("f32", "fp32"),
    )


def _bytes_read(packed: Packed, dynamic_group: int) -> int:
    """Scales become float32; zero points too, or bytes beside int8 activations.

    (DnnlFCPrimitive, createPrimitiveAttrs, of the CPU plugin.)
    """
    groups = 0 if packed.zeros is None else packed.scales.numel()
    return packed.codes.nbytes + packed.scales.nbytes + groups * (1 if dynamic_group else 4)


def _product(packed: Packed, rows: int):
    """(parameter, its product with (codes - zeros) * scales), in the form the plugin looks for."""
    import openvino
    from openvino import opset13 as ops

    n, groups = packed.scales.shape
    integer = {4: openvino.Type.u4, 8: openvino.Type.u8}[packed.bits]
    zeros, zero_shape = packed.zeros, [n, groups, 1]
    if zeros is None:
        zeros, zero_shape = torch.tensor([1 << (packed.bits - 1)], dtype=torch.uint8), [1, 1, 1]
    codes = _constant(packed.codes, [n, groups, packed.group], integer)
    offsets = ops.convert(_constant(zeros, zero_shape, integer), "f32")
    scales = _constant(packed.scales, [n, groups, 1], openvino.Type.f32)
    weight = ops.multiply(ops.subtract(ops.convert(codes, "f32"), offsets), scales)
    shape = _constant(torch.tensor([n, groups * packed.group]), [2], openvino.Type.i64)
    weight = ops.reshape(weight, shape, special_zero=False)
    parameter = ops.parameter([rows, groups * packed.group], openvino.Type.f32)
    return parameter, ops.matmul(parameter, weight, False, True)


def _constant(values: torch.Tensor, shape: list[int], integer):
    """A constant with a copy of the values, whose bytes may hold several elements."""
    import openvino

    tensor = openvino.Tensor(values.contiguous().numpy(), openvino.Shape(shape), integer)
    return openvino.op.Constant(tensor, shared_memory=False)


class _Run:
    """A request with its weights, bound to x and to memory for the results: no call copies them.

    Each product has an input of its own, all of them x: the plugin may join products of one input.
    """

    def __init__(self, weights: list[Packed], x: torch.Tensor, settings: dict):
        import openvino

        rows, n = x.shape[:-1], len(weights[0].scales)
        self._x, self.results = x, [torch.empty(*rows, n) for _ in weights]
        ends = [_product(packed, rows.numel()) for packed in weights]
        model = openvino.Model([product for _, product in ends], [start for start, _ in ends])
        self._request = core().compile_model(model, "CPU", settings).create_infer_request()
        for i, y in enumerate(self.results):
            flat = (t.view(rows.numel(), -1).numpy() for t in (x, y))
            inputs, outputs = (openvino.Tensor(array, shared_memory=True) for array in flat)
            self._request.set_input_tensor(i, inputs)
            self._request.set_output_tensor(i, outputs)

    @property
    def threads(self) -> int:
        """Threads that the model runs on."""
        return self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")

    def __call__(self) -> torch.Tensor:
        self._request.start_async()  # not infer(), which sorts out its arguments in Python first
        self._request.wait()
        return self.results[0]
