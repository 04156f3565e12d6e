"""Weights whose columns are stored in another order: meaning, refusals, copies."""

import copy
import dataclasses
import pickle
import re

import pytest
import torch
from torch._subclasses import FakeTensorMode

from lowbit import QuantizedWeight, dequantize_weight, prepack, quantize_weight, unpack
from tests.properties import given, st
from tests.test_weights import weights
from tests.weight_cases import assert_same_bits

W = quantize_weight(torch.randn(6, 40), group_size=16)
ORDER = torch.randperm(40, generator=torch.Generator().manual_seed(0), dtype=torch.int32)


def permuted(weight=W, order=ORDER) -> QuantizedWeight:
    return QuantizedWeight(*weight.tensors, weight.format, order)


@given(weights(), st.integers(0, 1000))
def test_stored_column_j_is_logical_column_permutation_j(weight, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(weight.shape[1], generator=generator, dtype=torch.int32)
    stored, logical = weight.dequantize(), permuted(weight, order).dequantize()
    for j, column in enumerate(order.tolist()):
        assert_same_bits(logical[:, column].contiguous(), stored[:, j].contiguous())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dequantize_weight_gives_logical_columns(dtype, runner):
    weight = permuted()
    want = torch.empty(6, 40).index_copy_(1, ORDER.long(), W.dequantize()).to(dtype)
    assert torch.equal(dequantize_weight(weight, dtype), want)
    assert torch.equal(dequantize_weight(prepack(weight), dtype), want)
    assert torch.equal(weight.dequantize(dtype), want)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_from_parts_takes_any_integers(dtype):
    codes = torch.randint(0, 16, (4, 40))
    weight = QuantizedWeight.from_parts(codes, torch.ones(4), permutation=ORDER.to(dtype))
    assert weight.permutation.dtype == torch.int32 and torch.equal(weight.permutation, ORDER)
    assert weight.parts == (*weight.tensors, weight.permutation)
    assert torch.equal(weight.dequantize()[:, ORDER.long()], codes.float())


def test_sizes_and_words_of_it():
    assert permuted().nbytes == W.nbytes + 4 * 40
    assert "permuted" in repr(permuted()) and "permuted" not in repr(W)


def test_row_slices_keep_it():
    weight = permuted()
    assert weight.slice_rows(2, 5).permutation is weight.permutation
    assert torch.equal(weight.slice_rows(2, 5).dequantize(), weight.dequantize()[2:5])


WAYS = [
    copy.copy,
    copy.deepcopy,
    lambda weight: pickle.loads(pickle.dumps(weight)),
    lambda weight: QuantizedWeight.from_tensors(weight.to_tensors("a."), "a."),
    lambda weight: weight.to("cpu"),
    lambda weight: unpack(prepack(weight)),
]


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_with_the_weight(way):
    other = way(permuted())
    assert torch.equal(other.permutation, ORDER)
    assert torch.equal(other.dequantize(), permuted().dequantize())


def test_a_file_without_one_has_none():
    tensors = W.to_tensors()
    assert "permutation" not in tensors
    assert QuantizedWeight.from_tensors(tensors).permutation is None


TWICE = ORDER.clone()
TWICE[0] = TWICE[1]
BEYOND = torch.where(ORDER == 39, 40, ORDER).int()
CODES = torch.zeros(4, 40, dtype=torch.uint8)
TENSORS = permuted().to_tensors()
REFUSED = {
    "QuantizedWeight: permutation must be int32, got int64": lambda: permuted(order=ORDER.long()),
    "QuantizedWeight: permutation must have shape [40], got [39]": (
        lambda: permuted(order=ORDER[:39])
    ),
    "QuantizedWeight: permutation must have shape [40], got [1, 40]": (
        lambda: permuted(order=ORDER[None])
    ),
    "QuantizedWeight: permutation must be on cpu, got meta": (
        lambda: permuted(order=ORDER.to("meta"))
    ),
    "QuantizedWeight: permutation must have unit stride along its last dimension, got stride 2": (
        lambda: permuted(order=ORDER.repeat_interleave(2)[::2])
    ),
    "QuantizedWeight: permutation must hold each of 0..39 once, got 39 different numbers from": (
        lambda: permuted(order=TWICE)
    ),
    "QuantizedWeight: permutation must hold each of 0..39 once, got 40 different numbers from 0 to "
    "40": lambda: permuted(order=BEYOND),
    "QuantizedWeight: permutation must hold each of 0..39 once, got 40 different numbers from -40 "
    "to -1": lambda: dataclasses.replace(W, permutation=ORDER - 40),
    "QuantizedWeight: permutation must hold each": (
        lambda: QuantizedWeight.from_tensors({**TENSORS, "permutation": TWICE})
    ),
    "QuantizedWeight.from_parts: permutation must be integers of shape [40], got float32 [40]": (
        lambda: QuantizedWeight.from_parts(CODES, torch.ones(4), permutation=ORDER.float())
    ),
    "QuantizedWeight.from_parts: permutation must be integers of shape [40], got int32 [39]": (
        lambda: QuantizedWeight.from_parts(CODES, torch.ones(4), permutation=ORDER[:39])
    ),
    "QuantizedWeight.from_parts: permutation must hold each of 0..39 once, got 40 different numbers"
    " from 0 to 4294967296": lambda: QuantizedWeight.from_parts(
        CODES, torch.ones(4), permutation=torch.where(ORDER == 39, 2**32, ORDER.long())
    ),
    "QuantizedWeight.from_parts: permutation must be a tensor, got list": (
        lambda: QuantizedWeight.from_parts(CODES, torch.ones(4), permutation=[0] * 40)
    ),
    "slice_columns: permutation must be None, got a permutation of 40 columns": (
        lambda: permuted().slice_columns(0, 16)
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text):
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        REFUSED[text]()


def test_tensors_without_data_are_not_read():
    meta = permuted().to("meta")
    assert QuantizedWeight(*meta.tensors, meta.format, meta.permutation).permutation.is_meta
    assert meta.dequantize().shape == (6, 40)
    weight = permuted()
    with FakeTensorMode() as mode:
        parts = [t if t is None else mode.from_tensor(t) for t in weight.parts]
        fake = QuantizedWeight(*parts[:5], W.format, parts[5])
        assert fake.dequantize().shape == (6, 40)
