"""torch.compile, torch.export and AOTInductor with weight_only_linear and dequantize_weight."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lowbit import dequantize_weight, quantize_weight, weight_only_linear


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Layer(torch.nn.Module):
    """The tensors of a weight as buffers, so that export and AOTInductor carry them."""

    def __init__(self, bits=4):
        super().__init__()
        generator = torch.Generator().manual_seed(bits)
        self.weight = quantize_weight(
            torch.randn(24, 96, generator=generator), bits=bits, group_size=32
        )
        self.bias = torch.nn.Parameter(torch.randn(24, generator=generator))

    def forward(self, x):
        return torch.relu(weight_only_linear(x, self.weight, self.bias))


@pytest.mark.parametrize("bits", [3, 4])
def test_one_compilation_serves_every_number_of_rows(bits):
    layer, counter = Layer(bits), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for m in (4, 5, 17, 64):
        x = torch.randn(m, 96)
        with torch.no_grad():
            assert torch.equal(compiled(x), layer(x))
    assert counter.frame_count == 1


def test_marked_dynamic_rows_compile_once():
    layer, counter = Layer(), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for m in (4, 9, 33):
        x = torch.randn(m, 96)
        torch._dynamo.mark_dynamic(x, 0)
        with torch.no_grad():
            assert torch.equal(compiled(x), layer(x))
    assert counter.frame_count == 1


def test_gradients_through_a_compiled_layer():
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    grads = []
    for call in (layer, compiled):
        x = torch.linspace(-1, 1, 5 * 96).reshape(5, 96).requires_grad_()
        layer.bias.grad = None
        call(x).square().sum().backward()
        grads.append((x.grad, layer.bias.grad))
    for eager, graph in zip(*grads, strict=True):
        assert torch.allclose(eager, graph, rtol=1e-5, atol=1e-5)


def test_autocast_in_a_compiled_layer():
    layer, x = Layer(), torch.randn(3, 96)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), layer(x))


def test_dequantize_compiles():
    weight = quantize_weight(torch.randn(8, 64))
    compiled = torch.compile(
        lambda: dequantize_weight(weight, torch.bfloat16) + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(), dequantize_weight(weight, torch.bfloat16) + 1)


def test_out_compiles():
    weight, x = quantize_weight(torch.randn(8, 64)), torch.randn(2, 64)

    def into(x, out):
        weight_only_linear(x, weight, out=out)
        return out + 1

    out = torch.empty(2, 8)
    compiled = torch.compile(into, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, out), weight_only_linear(x, weight) + 1)
    assert torch.equal(out, weight_only_linear(x, weight))


def test_refusals_hold_under_compile():
    layer = Layer()
    compiled = torch.compile(layer, backend="aot_eager")
    with pytest.raises(Exception, match=r"x must have shape \[..., 96\]"):
        compiled(torch.randn(2, 95))


def test_inductor():
    layer, x = Layer(), torch.randn(6, 96)
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, dynamic=True)
        assert torch.equal(compiled(x), layer(x))


def exported(layer):
    rows = torch.export.Dim("rows", min=1, max=4096)
    return torch.export.export(layer, (torch.randn(4, 96),), dynamic_shapes={"x": {0: rows}})


def test_export_with_dynamic_rows(tmp_path):
    layer = Layer()
    program = exported(layer)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "lowbit.weight_only_linear.default" in targets
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for m in (1, 4, 33):
        x = torch.randn(m, 96)
        with torch.no_grad():
            assert torch.equal(loaded(x), layer(x))


@pytest.mark.slow
@pytest.mark.every_time
def test_aot_inductor_package(tmp_path):
    layer = Layer()
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            exported(layer), package_path=str(tmp_path / "layer.pt2")
        )
        loaded = torch._inductor.aoti_load_package(path)
        for m in (1, 4, 33):
            x = torch.randn(m, 96)
            assert torch.equal(loaded(x), layer(x))
