"""A QuantizedWeight through copies, pickle, torch.save, safetensors, pytrees and devices."""

import copy
import dataclasses
import io
import pickle

import pytest
import torch
from torch.utils import _pytree as pytree

from lowbit import QuantizedWeight, quantize_weight, weight_only_linear
from lowbit.formats.weight_format import SCALE_DTYPES

safetensors = pytest.importorskip("safetensors.torch")


def variants():
    w = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))
    for dtype in SCALE_DTYPES:
        yield f"scales {dtype}", quantize_weight(w, group_size=32, scale_dtype=dtype)
    yield "nf4", quantize_weight(w, element="nf4", group_size=32)
    yield "one bit", quantize_weight(w, bits=1)
    yield (
        "row s0",
        QuantizedWeight.from_parts(
            torch.ones(6, 40, dtype=torch.int64), torch.ones(6), s0=torch.arange(6.0), bits=3
        ),
    )
    yield "row slice", quantize_weight(w, group_size=32).slice_rows(1, 5)
    yield "column slice", quantize_weight(w, group_size=32).slice_columns(32, 96)
    yield "no rows", quantize_weight(w[:0])


VARIANTS = dict(variants())


@pytest.fixture(params=VARIANTS)
def weight(request):
    return VARIANTS[request.param]


def through_pickle(weight):
    return pickle.loads(pickle.dumps(weight))


def through_torch_save(weight):
    file = io.BytesIO()
    torch.save({"weight": weight}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["weight"]


def through_safetensors(weight):
    data = safetensors.save(weight.to_tensors("layer."))
    return QuantizedWeight.from_tensors(safetensors.load(data), "layer.")


def through_pytree(weight):
    leaves, spec = pytree.tree_flatten(weight)
    return pytree.tree_unflatten(leaves, spec)


WAYS = [
    copy.copy,
    copy.deepcopy,
    through_pickle,
    through_torch_save,
    through_safetensors,
    through_pytree,
    lambda weight: weight.to("cpu"),
    lambda weight: pytree.tree_map_only(torch.Tensor, torch.clone, weight),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_round_trip(weight, way):
    check_same(way(weight), weight)


def check_same(one, other):
    assert one.format == other.format and type(one.format) is type(other.format)
    for a, b in zip(one.tensors, other.tensors, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype and a.shape == b.shape
            raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
            assert torch.equal(*raw)


def test_the_comparison_sees_one_bit():
    weight = VARIANTS["nf4"]
    other = copy.deepcopy(weight)
    other.qweight[0, 0] ^= 1
    with pytest.raises(AssertionError):
        check_same(other, weight)


def test_deepcopy_shares_nothing(weight):
    other = copy.deepcopy(weight)
    for a, b in zip(other.tensors, weight.tensors, strict=True):
        if a is not None and a.numel():
            assert a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr()


def test_a_weight_twice_in_a_structure_stays_one():
    weight = VARIANTS["nf4"]
    first, second = copy.deepcopy([weight, weight])
    assert first is second


def test_pickle_of_a_slice_holds_the_slice_only():
    w = quantize_weight(torch.randn(4096, 64))
    assert len(pickle.dumps(w.slice_rows(0, 1))) < w.nbytes / 10


def newer(numbers):
    return [2, *numbers[1:]]


def test_newer_version_is_refused_by_name():
    tensors = VARIANTS["nf4"].to_tensors()
    tensors["format"] = torch.tensor(newer(tensors["format"].tolist()))
    text = "QuantizedWeight.from_tensors: format_version must be 1, got 2; update lowbit"
    with pytest.raises(ValueError) as refusal:
        QuantizedWeight.from_tensors(tensors)
    assert str(refusal.value) == text
    rebuild, args = VARIANTS["nf4"].__reduce__()
    with pytest.raises(ValueError, match="format_version must be 1, got 2; update lowbit"):
        rebuild(*args[:-1], newer(args[-1]))
    with pytest.raises(ValueError, match="format_version must be 1, got 2; update lowbit"):
        QuantizedWeight(*VARIANTS["nf4"].tensors, newer(VARIANTS["nf4"].format))


def test_newer_version_with_more_fields_is_refused_by_version():
    tensors = VARIANTS["nf4"].to_tensors()
    tensors["format"] = torch.tensor([*newer(tensors["format"].tolist()), 0, 0])
    with pytest.raises(ValueError, match="format_version must be 1, got 2"):
        QuantizedWeight.from_tensors(tensors)
    fields = [*newer(VARIANTS["nf4"].format), 0, 0]
    with pytest.raises(ValueError, match="format_version must be 1, got 2"):
        QuantizedWeight(*VARIANTS["nf4"].tensors, fields)


@pytest.mark.parametrize("missing", ["format", "qweight", "scales"])
def test_missing_tensors_are_named(missing):
    tensors = VARIANTS["nf4"].to_tensors("layer.")
    del tensors["layer." + missing]
    with pytest.raises(ValueError) as refusal:
        QuantizedWeight.from_tensors(tensors, "layer.")
    assert f"layer.{missing}" in str(refusal.value)


def test_immutable(weight):
    with pytest.raises(dataclasses.FrozenInstanceError):
        weight.scales = weight.scales.clone()
    with pytest.raises(dataclasses.FrozenInstanceError):
        del weight.scales


def test_identity_equality_and_hash():
    weight = VARIANTS["nf4"]
    assert weight != copy.copy(weight)
    assert len({weight, weight, copy.copy(weight)}) == 2


def test_pytree_leaves_are_the_tensors(weight):
    leaves, spec = pytree.tree_flatten(weight)
    assert [leaf is tensor for leaf, tensor in zip(leaves, weight.parts, strict=True)]
    dumped = pytree.treespec_dumps(spec)
    check_same(pytree.tree_unflatten(leaves, pytree.treespec_loads(dumped)), weight)
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(weight)[0]]
    assert paths == [".qweight", ".scales", ".zeros", ".table", ".s0", ".permutation"]


def test_tree_map_may_put_anything_in_the_leaves(weight):
    shapes = pytree.tree_map_only(torch.Tensor, lambda t: tuple(t.shape), weight)
    assert shapes.scales == tuple(weight.scales.shape)


def test_to_another_device_and_no_dtype(weight):
    moved = weight.to("meta")
    assert moved.device.type == "meta" and moved.format == weight.format
    assert weight.to(non_blocking=True) is weight
    for bad in ((torch.float16,), ("cpu", torch.float16), (torch.ones(1),)):
        with pytest.raises(TypeError, match=r"QuantizedWeight.to: dtype must name a device only"):
            weight.to(*bad)


def test_repr_says_what_it_is():
    text = repr(VARIANTS["nf4"])
    assert text.startswith("QuantizedWeight(6x96, table4, block 1x32, zeros none")


def test_weight_as_argument_of_a_compiled_function():
    weight, x = VARIANTS["scales torch.float32"], torch.randn(2, 96)
    compiled = torch.compile(
        lambda x, w: weight_only_linear(x, w) * 2, fullgraph=True, backend="eager"
    )
    assert torch.equal(compiled(x, weight), weight_only_linear(x, weight) * 2)
