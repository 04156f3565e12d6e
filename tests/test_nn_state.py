"""The state dict of a QuantLinear: round trips, what is refused, what subclasses add."""

import copy
import io
import itertools

import pytest
import torch

from lowbit.nn import QuantLinear
from tests.nn_modules import (
    BUFFERS,
    OPTIONS,
    K,
    N,
    assert_same_weight,
    assert_untouched,
    every_format,
    inputs,
    make,
    snapshot,
)

pytestmark = pytest.mark.usefixtures("layout")


def by_torch_save(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def by_safetensors(state):
    safetensors = pytest.importorskip("safetensors.torch")
    return safetensors.load(safetensors.save(state))


@every_format
@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("store", [by_torch_save, by_safetensors])
def test_state_dict_round_trip(form, store, assign):
    module = make(form)
    other = QuantLinear.empty(K, N, device="meta" if assign else None, **OPTIONS[form])
    loaded = store(module.state_dict())
    result = other.load_state_dict(loaded, strict=True, assign=assign)
    assert not result.missing_keys and not result.unexpected_keys
    assert_same_weight(module, other)
    assert torch.equal(other(inputs()), module(inputs()))


@pytest.mark.parametrize("given, made", [*itertools.permutations(OPTIONS, 2)])
def test_loading_takes_the_settings_of_the_file(given, made):
    module, other = make(given), make(made, seed=1)
    other.load_state_dict(module.state_dict())
    assert_same_weight(module, other)
    assert list(dict(other.named_buffers())) == BUFFERS[given]
    assert torch.equal(other(inputs()), module(inputs()))
    assert repr(other) == repr(module)


def test_loading_writes_in_place_where_shapes_agree():
    module, other = make(), make(seed=1)
    before = {name: tensor.data_ptr() for name, tensor in other.named_buffers()}
    other.load_state_dict(module.state_dict())
    assert {name: tensor.data_ptr() for name, tensor in other.named_buffers()} == before


def test_loading_keeps_the_dtype_of_the_bias():
    module, other = make(), make(seed=1).half()
    other.load_state_dict(module.state_dict())
    assert other.bias.dtype == torch.float16
    assert torch.equal(other.bias, module.bias.half())


def changed(state, **changes):
    state = {**state, **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def with_format(state, field, value):
    numbers = state["format"].clone()
    numbers[field] = value
    return changed(state, format=numbers)


REFUSED = {
    "newer": (
        lambda s: with_format(s, 0, 2),
        "weight: QuantLinear: format_version must be 1, got 2; update lowbit",
    ),
    "size": (
        lambda s: make(n=N + 1).state_dict() | {"bias": s["bias"]},
        r"QuantLinear: weight must have shape \[20, 75\], got \[21, 75\]",
    ),
    "bias size": (
        lambda s: changed(s, bias=torch.zeros(N + 1)),
        r"QuantLinear: bias must have shape \[20\], got \[21\]",
    ),
    "scales": (
        lambda s: changed(s, scales=torch.ones(N, 2)),
        r"scales must have shape \[20, 3\], got \[20, 2\]",
    ),
    "dtype": (
        lambda s: changed(s, qweight=s["qweight"].long()),
        "qweight must be int32, got int64",
    ),
    "no zeros": (
        lambda s: changed(s, zeros=None),
        "zeros must be a tensor for the zero kind code, got None",
    ),
    "extra zeros": (
        lambda s: with_format(s, 6, 1),
        "zeros must be None for the zero kind midpoint",
    ),
    "no format": (
        lambda s: changed(s, format=None),
        "QuantLinear: the state dict must hold format, got bias, qweight, scales, zeros",
    ),
    "no scales": (lambda s: changed(s, scales=None), "the state dict must hold scales, got"),
    "meta": (
        lambda s: {name: tensor.to("meta") for name, tensor in s.items()},
        "QuantLinear: format must be a tensor with data, got a meta tensor; load the file with",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("form", ["code", "midpoint"])
def test_a_refused_load_changes_nothing(case, form):
    change, message = REFUSED[case]
    module = make(form)
    before, fmt = snapshot(module), module.weight.format
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(change(make("code", seed=1).state_dict()))
    assert_untouched(module, before, fmt)


def test_a_refusal_names_the_layer():
    model = torch.nn.Sequential(make(), make(n=K))
    state = model.state_dict()
    state["1.format"][0] = 7
    with pytest.raises(
        RuntimeError, match="1.weight: QuantLinear: format_version must be 1, got 7"
    ):
        model.load_state_dict(state)


@pytest.mark.parametrize("strict", [False, True])
def test_keys_are_reported_as_torch_reports_them(strict):
    module, other = make(seed=1), make()
    state = changed(other.state_dict(), bias=None, extra=torch.zeros(1))
    if strict:
        with pytest.raises(RuntimeError) as raised:
            module.load_state_dict(state)
        assert 'Missing key(s) in state_dict: "bias"' in str(raised.value)
        assert 'Unexpected key(s) in state_dict: "extra"' in str(raised.value)
    else:
        result = module.load_state_dict(state, strict=False)
        assert result == (["bias"], ["extra"])
    assert_same_weight(module, other)


def test_a_float_state_dict_is_no_quantized_one():
    module = make()
    fmt, weight = module.weight.format, module.qweight.clone()
    state = torch.nn.Linear(K, N).state_dict()
    result = module.load_state_dict(state, strict=False)
    assert set(result.missing_keys) == {"format", "qweight", "scales", "zeros"}
    assert result.unexpected_keys == ["weight"]
    assert module.weight.format == fmt and torch.equal(module.qweight, weight)
    assert torch.equal(module.bias, state["bias"])
    with pytest.raises(RuntimeError, match='Missing key.*"format"'):
        module.load_state_dict(state)


class WithAdapter(QuantLinear):
    """A subclass with state of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.adapter = torch.nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(3), persistent=False)


def test_a_subclass_with_more_state_loads_and_copies():
    first, second = (WithAdapter(make(seed=seed).weight) for seed in (0, 1))
    first.count += 5
    second.load_state_dict(first.state_dict())
    assert second.count == 5 and torch.equal(first.adapter.weight, second.adapter.weight)
    assert torch.equal(first(inputs()), second(inputs()))
    other = copy.deepcopy(first).half()
    assert other.count == 5 and other.count.dtype == torch.float16
    assert_same_weight(other, first)
