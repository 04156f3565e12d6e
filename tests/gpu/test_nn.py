"""QuantLinear between the CPU and a CUDA device: the layout and the values follow."""

import pytest
import torch

import lowbit
from lowbit.nn import QuantLinear, weight_module
from lowbit.ops.weight_only_linear import fastest_layout

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cpu_kernels_read_panels(monkeypatch):
    def layout(device, weight):
        return "panels" if device.type == "cpu" else fastest_layout(device, weight)

    monkeypatch.setattr(weight_module, "fastest_layout", layout)


def make():
    weight = lowbit.quantize_weight(torch.randn(70, 75), bits=3, group_size=32)
    return QuantLinear(weight, torch.randn(70), mode="exact", low_rank=pair())


def pair():
    return torch.randn(4, 75), torch.randn(70, 4)


def test_a_move_takes_the_layout_of_the_device():
    module, x = make(), torch.randn(5, 75)
    state, y = module.state_dict(), module(x)
    assert module.weight.layout == "panels"
    module.to("cuda")
    assert module.weight.layout == "canonical" and module.low_rank_a.is_cuda
    torch.testing.assert_close(module(x.cuda()).cpu(), y, rtol=1e-4, atol=1e-4)
    module.to("cpu")
    assert module.weight.layout == "panels"
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_gradients_on_the_device():
    module, x = make(), torch.randn(5, 75)
    grads = []
    for device in ("cpu", "cuda"):
        module.to(device).zero_grad()
        leaf = x.to(device).requires_grad_()
        module(leaf).square().sum().backward()
        grads.append([t.grad.cpu().clone() for t in (leaf, *module.parameters())])
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-2)


def test_a_file_loads_into_a_module_on_the_device():
    module = make()
    other = make().to("cuda")
    other.load_state_dict(module.state_dict())
    assert other.weight.layout == "canonical" and other.qweight.is_cuda
    x = torch.randn(2, 75)
    torch.testing.assert_close(other(x.cuda()).cpu(), module(x), rtol=1e-4, atol=1e-4)
