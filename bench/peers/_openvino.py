"""OpenVINO's CPU plugin on a compressed weight: our codes, scales and zero points.

The repacked weight belongs to the compiled model, so each cold copy is a model of its own.
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
    model = _model(packed, x)
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": dynamic_group,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }

    def another() -> tuple[_Product]:
        return (_Product(core().compile_model(model, "CPU", settings), x),)

    return Entry(
        name,
        lambda product: product(),
        another(),
        packed.dequantized(x.shape[-1]),
        another=another,
        nbytes=_bytes_read(packed, dynamic_group),
        arithmetic="int8" if dynamic_group else precision.replace("f32", "fp32"),
    )


def _bytes_read(packed: Packed, dynamic_group: int) -> int:
    """Scales become float32; zero points too, or bytes beside int8 activations.

    (DnnlFCPrimitive, createPrimitiveAttrs, of the CPU plugin.)
    """
    groups = 0 if packed.zeros is None else packed.scales.numel()
    return packed.codes.nbytes + packed.scales.nbytes + groups * (1 if dynamic_group else 4)


def _model(packed: Packed, x: torch.Tensor):
    """(codes - zeros) * scales as the plugin looks for it, in front of the product with x."""
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
    rows, k = x.shape[:-1].numel(), x.shape[-1]
    parameter = ops.parameter([rows, k], openvino.Type.f32)
    return openvino.Model([ops.matmul(parameter, weight, False, True)], [parameter])


def _constant(values: torch.Tensor, shape: list[int], integer):
    """A constant with a copy of the values, whose bytes may hold several elements."""
    import openvino

    tensor = openvino.Tensor(values.contiguous().numpy(), openvino.Shape(shape), integer)
    return openvino.op.Constant(tensor, shared_memory=False)


class _Product:
    """A request with its weight, bound to x and to memory for the result: a call copies nothing."""

    def __init__(self, model, x: torch.Tensor):
        import openvino

        n = model.output(0).shape[-1]
        self._x, self._y = x, torch.empty(*x.shape[:-1], n)
        self._request = model.create_infer_request()
        flat = x.view(-1, x.shape[-1]), self._y.view(-1, n)
        inputs, outputs = (openvino.Tensor(t.numpy(), shared_memory=True) for t in flat)
        self._request.set_input_tensor(inputs)
        self._request.set_output_tensor(outputs)

    @property
    def threads(self) -> int:
        """Threads that the model runs on."""
        return self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")

    def __call__(self) -> torch.Tensor:
        self._request.start_async()  # not infer(), which sorts out its arguments in Python first
        self._request.wait()
        return self._y
