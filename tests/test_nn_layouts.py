"""The layout of a QuantLinear's weight: what packs it, what unpacks it, and what never shows it."""

import copy
import dataclasses
import gc
import io
import pickle
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

import lowbit
from lowbit.formats.weight_format import PARTS
from lowbit.nn import QuantLinear, weight_module

K, N = 75, 70
FORMS = {
    "code": {"bits": 4, "group_size": 32},
    "midpoint": {"bits": 3, "group_size": -1, "symmetric": True},
    "table": {"element": "nf4", "group_size": 64},
    "s0": {"bits": 8, "scale_dtype": torch.float8_e4m3fn, "group_size": 32},
    "e8m0": {"bits": 5, "scale_dtype": torch.float8_e8m0fnu, "group_size": 32},
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def _cpu_kernels_read_panels(monkeypatch):
    """As in a build with CPU kernels, whether this is one or not."""

    def fastest_layout(device, weight):
        return "panels" if device.type == "cpu" else "canonical"

    monkeypatch.setattr(weight_module, "fastest_layout", fastest_layout)


def make_weight(form="code", permuted=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = lowbit.quantize_weight(torch.randn(N, K, generator=generator), **FORMS[form])
    order = torch.randperm(K, generator=generator, dtype=torch.int32)
    return dataclasses.replace(weight, permutation=order) if permuted else weight


def make(form="code", seed=0, **options):
    return QuantLinear(make_weight(form, seed=seed), torch.randn(N), **options)


def layout_of(module):
    assert module.qweight is module.weight.qweight
    return module.weight.layout


def same_bytes(a, b):
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        assert same_bytes(a[name], b[name]), name


def assert_same_weight(a, b):
    assert a.weight.format == b.weight.format
    for mine, other in zip(a.weight.parts, b.weight.parts, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or same_bytes(mine, other)


def inputs(rows=3):
    return torch.randn(rows, K, generator=torch.Generator().manual_seed(9))


# What packs.


@every_form
def test_a_module_packs_what_it_is_given(form):
    weight = make_weight(form)
    module = QuantLinear(weight)
    assert layout_of(module) == "panels" and "layout=panels, permuted" in repr(module)
    assert QuantLinear.from_linear(torch.nn.Linear(K, N), **FORMS[form]).weight.layout == "panels"
    assert QuantLinear.empty(K, N, **FORMS[form]).weight.layout == "panels"
    plain = QuantLinear(weight, prepack=False)
    assert plain.qweight.data_ptr() == weight.qweight.data_ptr()
    assert torch.equal(module(inputs()), plain(inputs()))


def test_a_packed_weight_is_kept_as_it_is():
    weight = lowbit.prepack(make_weight(), "panels")
    for prepack in (True, False):
        module = QuantLinear(weight, prepack=prepack)
        assert module.qweight.data_ptr() == weight.qweight.data_ptr()


@every_form
def test_packing_drops_the_canonical_tensors(form):
    module = QuantLinear(lowbit.quantize_weight(torch.randn(N, K), **FORMS[form]), prepack=False)
    canonical = [weakref.ref(module.qweight), weakref.ref(module.scales)]
    before = copy.deepcopy(module)
    assert module.prepack() is module and layout_of(module) == "panels"
    gc.collect()
    assert not any(tensor() is not None for tensor in canonical)
    assert set(dict(module.named_buffers())) == set(dict(before.named_buffers()))
    assert module.unpack() is module
    assert_same_weight(module, before)


def test_quantize_model_packs_layer_by_layer(monkeypatch):
    model = torch.nn.Sequential(*(torch.nn.Linear(K, K) for _ in range(3)))
    alive, canonical = [], []
    true = weight_module.prepack

    def prepack(weight, layout):
        canonical.append(weakref.ref(weight.qweight))
        alive.append(sum(tensor() is not None for tensor in canonical))
        return true(weight, layout)

    monkeypatch.setattr(weight_module, "prepack", prepack)
    report = lowbit.quantize_model(model, progress=False).lowbit_report
    assert alive == [1, 1, 1]
    assert [layer.weight.layout for layer in model] == ["panels"] * 3
    assert report.bytes_after == sum(layer.weight.nbytes for layer in model)
    plain = lowbit.quantize_model(
        torch.nn.Sequential(torch.nn.Linear(K, K)), prepack=False, progress=False
    )
    assert plain[0].weight.layout == "canonical"


# What does not show it.


@every_form
def test_the_state_dict_is_canonical(form):
    module = make(form)
    expected = copy.deepcopy(module).unpack().state_dict()
    assert_same_state(module.state_dict(), expected)
    assert layout_of(module) == "panels"
    weight = lowbit.QuantizedWeight.from_tensors(module.state_dict())
    assert weight.layout == "canonical"
    assert torch.equal(weight.dequantize(), module.weight.dequantize())


@every_form
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_loading_packs_again_or_not(form, assign, packed):
    module, other = make(form), make(form, seed=1, prepack=packed)
    other.load_state_dict(module.state_dict(), assign=assign)
    assert layout_of(other) == ("panels" if packed else "canonical")
    assert torch.equal(other(inputs()), module(inputs()))
    assert_same_state(other.state_dict(), module.state_dict())


def test_loading_writes_into_the_panels_that_are_there():
    module, other = make(), make(seed=1)
    before = {name: tensor.data_ptr() for name, tensor in other.named_buffers()}
    other.load_state_dict(module.state_dict())
    assert {name: tensor.data_ptr() for name, tensor in other.named_buffers()} == before


def test_loading_does_not_change_the_file():
    state = make().state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    make(seed=1).load_state_dict(state)
    make(seed=2).load_state_dict(state, assign=True)
    assert_same_state(state, before)


@every_form
def test_pickles_are_canonical_and_their_modules_packed(form):
    module = make(form)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (pickle.loads(pickle.dumps(module)), torch.load(buffer, weights_only=False)):
        assert_same_weight(other, module)
    state = module.__getstate__()
    assert pickle.loads(pickle.dumps(state["_weight"])).layout == "canonical"
    kept = pickle.loads(pickle.dumps(module.unpack()))
    assert kept.weight.layout == "canonical"


@every_form
def test_copies_are_in_panels_of_their_own(form):
    module = make(form)
    other = copy.deepcopy(module)
    assert_same_weight(other, module)
    for mine, copied in zip(module.weight.parts, other.weight.parts, strict=True):
        assert mine is None or mine.data_ptr() != copied.data_ptr()


@every_form
def test_another_process_gets_the_shared_memory_itself(form):
    module = make(form).share_memory()
    assert layout_of(module) == "panels"
    other = pickle.loads(ForkingPickler.dumps(module))
    assert_same_weight(other, module)
    module.qweight.zero_()
    assert not other.qweight.any() and torch.equal(other(inputs()), module(inputs()))


@every_form
def test_shared_modules_are_copied_and_saved_as_others(form):
    module = make(form).share_memory()
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        assert_same_weight(other, module)
        assert other.qweight.data_ptr() != module.qweight.data_ptr()


# Moves.


@every_form
def test_through_the_meta_device(form):
    module = make(form)
    meta = copy.deepcopy(module).to("meta")
    assert layout_of(meta) == "panels" and meta.qweight.is_meta
    assert {name: t.shape for name, t in meta.state_dict().items()} == {
        name: t.shape for name, t in module.state_dict().items()
    }
    assert meta(torch.empty(2, K, device="meta")).shape == (2, N)
    back = meta.to_empty(device="cpu")
    back.load_state_dict(module.state_dict())
    assert_same_weight(back, module)


@every_form
@pytest.mark.parametrize("assign", [False, True])
def test_a_module_of_the_meta_device_packs_when_it_is_loaded(form, assign):
    module = make(form)
    other = QuantLinear.empty(K, N, device="meta", **FORMS[form])
    if not assign:
        other.to_empty(device="cpu")
    other.load_state_dict(module.state_dict(), assign=assign)
    assert_same_weight(other, module)


def test_other_devices_get_their_own_layout(monkeypatch):
    """With the CPU as both devices: the layout that it reads fastest changes."""
    module = make()
    monkeypatch.setattr(weight_module, "fastest_layout", lambda device, weight: "canonical")
    moved = copy.deepcopy(module)._apply(to_another_device)
    assert layout_of(moved) == "canonical"
    assert_same_weight(moved, copy.deepcopy(module).unpack())
    kept = QuantLinear(module.weight, prepack=False)._apply(to_another_device)
    assert layout_of(kept) == "panels"


class Elsewhere(torch.Tensor):
    """A tensor that says it is on another device."""

    @property
    def device(self):
        return torch.device("cpu", 1)


def to_another_device(tensor):
    return torch.Tensor._make_subclass(Elsewhere, tensor.detach().clone())


def test_a_move_that_fails_to_pack_leaves_the_module_whole(monkeypatch):
    module = make(prepack=False)
    module._prepack = True
    before = dict(module.named_buffers())

    def out_of_memory(weight, layout):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(weight_module, "prepack", out_of_memory)
    for change in (module.prepack, lambda: module._apply(to_another_device)):
        with pytest.raises(RuntimeError, match="out of memory"):
            change()
        now = dict(module.named_buffers())
        assert all(now[name] is before[name] for name in before) and len(now) == len(before)
        assert layout_of(module) == "canonical"


def test_parts_follow_the_order_of_the_format():
    assert [name for name, _ in make("s0").named_buffers()] == [
        part for part in PARTS if part != "table"
    ]
