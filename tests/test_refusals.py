"""Arguments of the wrong kind: one sentence that names the argument, what it must be, what came."""

import copy
import re

import numpy
import pytest
import torch

import lowbit
from lowbit import QuantizedWeight, dequantize_weight, quantize_weight, weight_only_linear

W = torch.randn(8, 32)
Q = quantize_weight(W, group_size=32)
X = torch.randn(2, 32)

REFUSALS = {
    "quantize_weight: bits must be an integer, got 4.0": lambda: quantize_weight(W, bits=4.0),
    "quantize_weight: bits must be an integer, got '4'": lambda: quantize_weight(W, bits="4"),
    "quantize_weight: bits must be an integer, got True": lambda: quantize_weight(W, bits=True),
    "quantize_weight: group_size must be an integer, got None": lambda: quantize_weight(
        W, group_size=None
    ),
    "quantize_weight: w must be a tensor, got ndarray": lambda: quantize_weight(W.numpy()),
    "quantize_weight: w must be a dense tensor, got sparse_coo; call .to_dense()": (
        lambda: quantize_weight(W.to_sparse())
    ),
    "quantize_weight: w must be a tensor with data, got a meta tensor": lambda: quantize_weight(
        W.to("meta")
    ),
    "quantize_weight: element must be a name or a tensor of levels, got ndarray": (
        lambda: quantize_weight(W, element=numpy.arange(16))
    ),
    "got 'float16'; pass a torch.dtype": lambda: quantize_weight(W, scale_dtype="float16"),
    "dequantize_weight: dtype must be float32, float16 or bfloat16, got 'float32'": (
        lambda: dequantize_weight(Q, "float32")
    ),
    "weight_only_linear: x must be a tensor, got list": lambda: weight_only_linear([1.0], Q),
    "weight_only_linear: x must be a dense tensor, got sparse_coo; call .to_dense()": (
        lambda: weight_only_linear(X.to_sparse(), Q)
    ),
    "weight_only_linear: bias must be a tensor, got float": lambda: weight_only_linear(X, Q, 1.0),
    "weight_only_linear: bias must be float32, got float16; cast x or the bias": (
        lambda: weight_only_linear(X, Q, torch.zeros(8).half())
    ),
    "QuantizedWeight.from_tensors: tensors must be a dict, got NoneType": (
        lambda: QuantizedWeight.from_tensors(None)
    ),
    "QuantizedWeight.from_parts: bits must be an integer, got 4.0": (
        lambda: QuantizedWeight.from_parts(W.to(torch.uint8), torch.ones(8), bits=4.0)
    ),
    "quantize_model: skip must hold names or patterns, got 1": lambda: lowbit.quantize_model(
        torch.nn.Sequential(torch.nn.Linear(4, 4)), skip=[1]
    ),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusal(sentence):
    with pytest.raises(TypeError if "meta" not in sentence else ValueError) as refusal:
        REFUSALS[sentence]()
    assert re.search(re.escape(sentence), str(refusal.value))


def test_copies_of_a_weight_keep_what_its_owner_shares():
    first, second = copy.deepcopy([Q, Q])
    assert first is second and first.qweight.data_ptr() != Q.qweight.data_ptr()


def test_models_with_lazy_and_float64_layers_name_them():
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.LazyLinear(4), torch.nn.Linear(8, 8).double()
    )
    report = lowbit.quantize_model(model, skip=None, progress=False).lowbit_report
    assert [layer.name for layer in report.layers] == ["0"]
    assert report.skipped == {
        "1": "it is a LazyLinear, a subclass of Linear",
        "2": "its weight is float64",
    }
