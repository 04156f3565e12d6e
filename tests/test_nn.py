"""QuantLinear: forward, casts and moves, copies, state dicts, tracing."""

import copy
import io
import itertools
import pickle
import warnings

import pytest
import safetensors.torch
import torch

import lowbit
from lowbit.nn import QuantLinear, weight_module

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


@pytest.fixture(autouse=True, params=["canonical", "panels"])
def layout(request, monkeypatch):
    """Runs each test once with the kernels of the CPU reading each layout fastest."""

    def fastest_layout(device):
        return request.param if device.type == "cpu" else "canonical"

    monkeypatch.setattr(weight_module, "fastest_layout", fastest_layout)
    return request.param


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


@every_format
def test_forward_is_weight_only_linear(form, runner):
    module = make(form)
    x = inputs()
    expected = lowbit.weight_only_linear(x, module.weight, module.bias)
    assert torch.equal(module(x), expected)
    exact = torch.nn.functional.linear(x.double(), module.weight.dequantize().double()).float()
    module.mode = "exact"
    torch.testing.assert_close(module(x), exact + module.bias, rtol=1e-4, atol=1e-4)
    assert module(inputs(0)).shape == (0, N)
    assert module(x[0]).shape == (N,)


@every_format
def test_buffers_are_the_parts_of_the_weight(form):
    module = make(form)
    assert [name for name, _ in module.named_buffers()] == BUFFERS[form]
    assert [name for name, _ in module.named_parameters()] == ["bias"]
    assert set(module.state_dict()) == {*BUFFERS[form], "bias", "format"}
    assert module.weight.shape == (N, K) == (module.out_features, module.in_features)
    assert module.weight.qweight is module.qweight


def test_repr_names_sizes_and_format():
    text = repr(make("table", bias=False))
    assert "in_features=75, out_features=20, bias=False, table4, group_size=64" in text
    assert "scales=float16" in text


def test_mode_is_used_and_checked():
    module = make()
    x = inputs()
    rounded = QuantLinear(module.weight, module.bias, mode="bf16")
    expected = lowbit.weight_only_linear(x, module.weight, module.bias, mode="bf16")
    assert torch.equal(rounded(x), expected)
    assert not torch.equal(module(x), expected)
    module.mode = "bf16"
    assert torch.equal(module(x), expected)
    with pytest.raises(
        ValueError, match="QuantLinear: mode must be one of exact, bf16, fp16, int8x2, got"
    ):
        QuantLinear(module.weight, mode="fast")


def test_arguments_that_do_not_fit_are_refused():
    weight = make().weight
    with pytest.raises(
        TypeError, match="QuantLinear: weight must be a QuantizedWeight, got Tensor"
    ):
        QuantLinear(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"QuantLinear: bias must have shape \[20\], got \[3\]"):
        QuantLinear(weight, torch.zeros(3))
    with pytest.raises(TypeError, match="bias must be a floating-point tensor or None, got"):
        QuantLinear(weight, torch.zeros(N, dtype=torch.int32))
    with pytest.raises(ValueError, match="QuantLinear: bias must be on cpu, got meta"):
        QuantLinear(weight, torch.zeros(N, device="meta"))
    with pytest.raises(
        TypeError, match="from_linear: linear must be a torch.nn.Linear, got Conv2d"
    ):
        QuantLinear.from_linear(torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"x must have shape \[..., 75\], got \[3, 74\]"):
        make()(inputs()[:, :74])


def test_from_linear_keeps_the_bias_and_the_training_mode():
    linear = torch.nn.Linear(K, N).eval()
    linear.bias.requires_grad_(False)
    module = QuantLinear.from_linear(linear)
    assert module.bias is linear.bias
    assert not module.training
    assert QuantLinear.from_linear(torch.nn.Linear(K, N, bias=False)).bias is None


def test_a_slice_is_copied_and_a_whole_weight_is_kept():
    weight = make("code", n=40).weight
    assert QuantLinear(weight).qweight.data_ptr() == weight.qweight.data_ptr()
    weight = lowbit.unpack(weight)
    whole = QuantLinear(weight, prepack=False)
    assert whole.qweight.data_ptr() == weight.qweight.data_ptr()
    rows = QuantLinear(weight.slice_rows(8, 28))
    assert rows.qweight.untyped_storage().nbytes() == rows.qweight.nbytes
    columns = QuantLinear(weight.slice_columns(32, 64))
    assert columns.qweight.is_contiguous() and columns.scales.is_contiguous()
    assert torch.equal(columns.weight.dequantize(), weight.dequantize()[:, 32:64])


def test_gradients_reach_x_and_bias_alone():
    module = make().train()
    x = inputs().requires_grad_()
    module(x).square().sum().backward()
    grad = 2 * module(x).detach()
    torch.testing.assert_close(x.grad, grad @ module.weight.dequantize(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(module.bias.grad, grad.sum(0), rtol=1e-5, atol=1e-4)
    assert all(not buffer.requires_grad for buffer in module.buffers())


@every_format
@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.double(),
        lambda m: m.float(),
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu", torch.bfloat16),
        lambda m: m.type(torch.float16),
        lambda m: m.type(torch.DoubleTensor),
    ],
    ids=["half", "bfloat16", "double", "float", "to", "to-device", "type", "type-name"],
)
def test_casts_leave_the_weight_alone(form, cast):
    module = make(form)
    expected = cast(torch.nn.Linear(K, N)).bias.dtype
    before = copy.deepcopy(module)
    assert cast(module) is module
    assert_same_weight(module, before)
    assert module.bias.dtype == expected
    if expected != torch.float64:
        assert module(inputs().to(expected)).dtype == expected


def test_a_failing_move_leaves_the_module_whole():
    module = make()
    before, fmt = snapshot(module), module.weight.format

    def fail_on_parameters(tensor):
        if isinstance(tensor, torch.nn.Parameter):
            raise RuntimeError("out of memory")
        return tensor.clone()

    with pytest.raises(RuntimeError, match="out of memory"):
        module._apply(fail_on_parameters)
    assert_untouched(module, before, fmt)


@every_format
def test_moves_take_every_tensor(form):
    module = make(form)
    text = repr(module)
    meta = copy.deepcopy(module).to("meta", torch.float16)
    assert all(t.is_meta for t in (*meta.parameters(), *meta.buffers()))
    assert repr(meta) == text and meta.bias.dtype == torch.float16
    assert meta(torch.empty(2, K, device="meta", dtype=torch.float16)).shape == (2, N)
    back = meta.to_empty(device="cpu")
    assert back.qweight.shape == module.qweight.shape and not back.qweight.is_meta
    back.float().load_state_dict(module.state_dict())
    assert torch.equal(back(inputs()), module(inputs()))
    shared = module.share_memory()
    assert all(t.is_shared() for t in (*shared.parameters(), *shared.buffers()))


@every_format
def test_copies_and_pickles_are_equal_and_independent(form):
    module = make(form).eval()
    module.mode = "fp16"
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
    ]
    for other in copies:
        assert_same_weight(module, other)
        assert other.mode == "fp16" and not other.training
        assert list(dict(other.named_buffers())) == BUFFERS[form]
        assert torch.equal(other(inputs()), module(inputs()))
        assert other.qweight.data_ptr() != module.qweight.data_ptr()
        assert other.bias.data_ptr() != module.bias.data_ptr()


def by_torch_save(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def by_safetensors(state):
    return safetensors.torch.load(safetensors.torch.save(state))


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


@pytest.mark.parametrize("device", ["cpu", "meta"])
@every_format
def test_empty_has_the_form_that_quantizing_gives(form, device):
    module = QuantLinear.empty(K, N, device=device, **OPTIONS[form])
    like = make(form)
    if device == "meta":
        like.unpack()  # there is nothing to pack before a load
    assert module.weight.format == like.weight.format
    for mine, other in zip(module.weight.tensors, like.weight.tensors, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or (mine.dtype, mine.shape) == (other.dtype, other.shape)
        assert mine is None or mine.device.type == device
    if device == "cpu":
        assert not module(inputs()).any()


def test_empty_follows_dtype_and_default_device():
    module = QuantLinear.empty(K, N, dtype=torch.bfloat16)
    assert module.bias.dtype == module.scales.dtype == torch.bfloat16
    with torch.device("meta"):
        module = QuantLinear.empty(K, N, bias=False)
        assert module.qweight.is_meta and module.bias is None
        assert not module.state_dict()["format"].is_meta


def test_a_layer_without_rows():
    module = make(n=0)
    assert module(inputs()).shape == (3, 0)
    other = QuantLinear.empty(K, 0)
    other.load_state_dict(module.state_dict())
    assert other(inputs()).shape == (3, 0)


def test_compiled_in_one_graph():
    model = torch.nn.Sequential(make("code", n=K), torch.nn.ReLU(), make("table"))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (1, 5):
        x = inputs(rows).requires_grad_()
        y = compiled(x)
        assert torch.equal(y, model(x))
        y.sum().backward()
        grad = x.grad.clone()
        x.grad = None
        model(x).sum().backward()
        torch.testing.assert_close(grad, x.grad)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_with_buffers_not_constants(strict):
    model = torch.nn.Sequential(make("code", n=K), torch.nn.ReLU(), make("s0"))
    x = inputs(4)
    shapes = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict)
    assert {"0.qweight", "0.zeros", "2.scales", "2.s0"} <= set(program.graph_signature.buffers)
    assert not program.constants
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    assert torch.equal(loaded(inputs(7)), model(inputs(7)))


def test_functional_call_replaces_the_tensors():
    module, other = make(), make(seed=1)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    y = torch.func.functional_call(module, tensors, (inputs(),))
    assert torch.equal(y, other(inputs()))


def test_autocast_computes_in_its_dtype():
    module = make()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(inputs())
    assert y.dtype == torch.bfloat16


@pytest.mark.slow
def test_packaged_by_aot_inductor(tmp_path):
    model = torch.nn.Sequential(make("code", n=K), torch.nn.ReLU(), make("table")).eval()
    shapes = ({0: torch.export.Dim("rows", min=1, max=64)},)
    program = torch.export.export(model, (inputs(4),), dynamic_shapes=shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations in its generated code
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "model.pt2")
        )
        packaged = torch._inductor.aoti_load_package(path)
    for rows in (1, 4, 9):
        torch.testing.assert_close(packaged(inputs(rows)), model(inputs(rows)))
