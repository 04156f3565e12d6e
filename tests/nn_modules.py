"""QuantLinears of every kind of weight, and what they are compared by."""

import pytest
import torch

import lowbit
from lowbit.nn import QuantLinear

# Each takes another set of buffers; K = 75 leaves ragged groups and padded words.
OPTIONS = {
    "code": {"bits": 4, "group_size": 32},
    "midpoint": {"bits": 3, "group_size": -1, "symmetric": True},
    "value": {"bits": 1, "group_size": 16},
    "table": {"element": "nf4", "group_size": 64},
    "s0": {"bits": 8, "scale_dtype": torch.float8_e4m3fn, "group_size": 32},
    "e8m0": {"bits": 5, "scale_dtype": torch.float8_e8m0fnu, "group_size": 32},
}
BUFFERS = {
    "code": ["qweight", "scales", "zeros"],
    "midpoint": ["qweight", "scales"],
    "value": ["qweight", "scales", "zeros"],
    "table": ["qweight", "scales", "table"],
    "s0": ["qweight", "scales", "zeros", "s0"],
    "e8m0": ["qweight", "scales", "zeros"],
}
K, N = 75, 20
every_format = pytest.mark.parametrize("form", OPTIONS)


def make(form="code", bias=True, seed=0, n=N, k=K):
    generator = torch.Generator().manual_seed(seed)
    weight = lowbit.quantize_weight(torch.randn(n, k, generator=generator), **OPTIONS[form])
    return QuantLinear(weight, torch.randn(n, generator=generator) if bias else None)


def inputs(rows=3, k=K):
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(9))


def snapshot(module):
    return {
        name: (t, t.clone()) for name, t in (*module.named_parameters(), *module.named_buffers())
    }


def assert_untouched(module, before, fmt):
    now = dict((*module.named_parameters(), *module.named_buffers()))
    assert now.keys() == before.keys()
    for name, (tensor, value) in before.items():
        assert now[name] is tensor and same_bytes(tensor, value), name
    assert module.weight.format == fmt


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def assert_same_weight(a: QuantLinear, b: QuantLinear):
    assert a.weight.format == b.weight.format
    for mine, other in zip(a.weight.tensors, b.weight.tensors, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or same_bytes(mine, other)
