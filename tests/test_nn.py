"""QuantLinear: forward, casts and moves, copies, tracing."""

import copy
import io
import pickle
import warnings

import pytest
import torch

import lowbit
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
        ValueError, match="QuantLinear: mode must be one of exact, bf16, fp16, int8x2, dense, got"
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
@pytest.mark.every_time
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
