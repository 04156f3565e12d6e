"""QuantLinear with a low-rank pair: as parameters, in state dicts, from the error of a weight."""

import copy
import pickle

import pytest
import torch

import lowbit
from lowbit.nn import QuantLinear
from lowbit.nn.low_rank import best_pair

K, N, R = 75, 70, 4


def make(rank=R, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    weight = lowbit.quantize_weight(torch.randn(N, K, generator=generator), group_size=32)
    pair = torch.randn(rank, K, generator=generator), torch.randn(N, rank, generator=generator)
    bias = torch.randn(N, generator=generator)
    return QuantLinear(weight, bias, low_rank=pair if rank is not None else None, **options)


def plain(seed=0):
    module = make(seed=seed)
    return QuantLinear(module.weight, module.bias)


def inputs(rows=3):
    return torch.randn(rows, K, generator=torch.Generator().manual_seed(9))


def test_forward_adds_the_pair(runner):
    module, x = make(), inputs()
    expected = lowbit.weight_only_linear(x, module.weight, module.bias, low_rank=module.low_rank)
    assert torch.equal(module(x), expected)
    assert not torch.equal(module(x), plain()(x))


def test_the_pair_are_parameters():
    module = make()
    assert [name for name, _ in module.named_parameters()] == ["bias", "low_rank_a", "low_rank_b"]
    assert module.low_rank[0] is module.low_rank_a and module.low_rank_b.shape == (N, R)
    assert "rank=4" in repr(module)
    assert {"low_rank_a", "low_rank_b"} <= set(module.state_dict())
    assert plain().low_rank is None and "low_rank_a" not in plain().state_dict()


def test_given_parameters_are_kept():
    pair = [torch.nn.Parameter(torch.zeros(1, K)), torch.nn.Parameter(torch.zeros(N, 1))]
    pair[0].requires_grad_(False)
    module = QuantLinear(make().weight, low_rank=pair)
    assert module.low_rank_a is pair[0] and module.low_rank_b is pair[1]


def test_a_fresh_pair_changes_nothing_and_trains():
    module, x = plain(), inputs(16)
    before = module(x).detach()
    assert module.add_low_rank(R) is module
    assert torch.equal(module(x), before)
    module.bias.requires_grad_(False)
    target = before + x @ torch.randn(K, 2) @ torch.randn(2, N) / 10
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.mse_loss(module(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_a_fresh_pair_has_the_dtype_and_device_asked_for():
    module = plain().to("meta").add_low_rank(2, torch.bfloat16)
    assert module.low_rank_a.is_meta and module.low_rank_b.dtype == torch.bfloat16
    assert plain().bfloat16().add_low_rank(0)(inputs().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(70, 75), (9, 200), (200, 9), (64, 64)])
@pytest.mark.parametrize("rank", [0, 1, 8, 500])
def test_the_best_pair_is_nearly_that_of_the_svd(shape, rank):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    low_rank_a, low_rank_b = best_pair(matrix, rank)
    assert torch.equal(torch.get_rng_state(), state)
    assert low_rank_a.shape == (min(rank, *shape), shape[1])
    values = torch.linalg.svdvals(matrix)
    left = values[low_rank_a.shape[0] :].square().sum().sqrt()
    error = (matrix - low_rank_b @ low_rank_a).norm()
    assert error <= 1.02 * left + 1e-4 * values[0]
    torch.testing.assert_close(low_rank_a.norm(dim=1), low_rank_b.norm(dim=0))
    again = best_pair(matrix, rank)
    assert torch.equal(again[0], low_rank_a) and torch.equal(again[1], low_rank_b)


def test_the_pair_of_from_linear_makes_up_for_the_quantization():
    linear = torch.nn.Linear(K, N)
    weight, errors = linear.weight.detach(), []
    for rank in (0, 4, 16, 100):
        module = QuantLinear.from_linear(linear, bits=2, group_size=32, rank=rank)
        w = module.weight.dequantize()
        if rank:
            w = w + (module.low_rank_b @ module.low_rank_a).detach()
            assert module.low_rank_a.dtype == weight.dtype
        errors.append((w - weight).norm() / weight.norm())
    assert errors[0] > 1.03 * errors[1] > 1.1 * errors[2] and errors[3] < 1e-5
    assert QuantLinear.from_linear(linear.bfloat16(), rank=2).low_rank_b.dtype == torch.bfloat16


def test_casts_copies_and_moves_take_the_pair():
    module = make()
    half = copy.deepcopy(module).half()
    assert half.low_rank_a.dtype == torch.float16 and half(inputs().half()).dtype == torch.float16
    assert copy.deepcopy(module).to("meta").low_rank_b.is_meta
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(inputs()), module(inputs()))
        assert other.low_rank_a.data_ptr() != module.low_rank_a.data_ptr()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("rank", [None, R, R + 3])
def test_loading_takes_the_pair_of_the_file(rank, assign):
    module, other = make(), make(rank, seed=1) if rank is not None else plain(seed=1)
    before = other.low_rank_a
    result = other.load_state_dict(module.state_dict(), assign=assign)
    assert not result.missing_keys and not result.unexpected_keys
    assert isinstance(other.low_rank_a, torch.nn.Parameter) and other.low_rank_a.requires_grad
    assert torch.equal(other(inputs()), module(inputs()))
    assert (other.low_rank_a is before) == (rank == R and not assign)
    other.low_rank_a.data.zero_()
    assert module.low_rank_a.any() or assign


def test_loading_keeps_the_dtype_of_the_pair():
    other = make(seed=1).half()
    other.load_state_dict(make().state_dict())
    assert other.low_rank_a.dtype == torch.float16
    assert torch.equal(other.low_rank_a, make().low_rank_a.half())


def test_a_file_without_a_pair_leaves_it():
    module = make(seed=1)
    before = module.low_rank_a.clone()
    result = module.load_state_dict(plain().state_dict(), strict=False)
    assert result.missing_keys == ["low_rank_a", "low_rank_b"]
    assert torch.equal(module.low_rank_a, before)
    with pytest.raises(RuntimeError, match='Missing key.*"low_rank_a"'):
        module.load_state_dict(plain().state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_rank_b": None}, "the state dict must hold both of low_rank_a and low_rank_b, got"),
        ({"low_rank_a": torch.ones(R, K + 1)}, r"low_rank_a must have shape \[4, 75\], got \[4, 7"),
        ({"low_rank_a": torch.ones(K)}, r"low_rank_a must have shape \[75, 75\], got \[75\]"),
        ({"low_rank_b": torch.ones(N, R + 1)}, r"low_rank_b must have shape \[70, 4\], got \[70, "),
    ],
)
@pytest.mark.parametrize("into", [make, plain])
def test_a_refused_load_changes_nothing(change, message, into):
    module = into(seed=1)
    before = {name: (t, t.clone()) for name, t in module.named_parameters()}
    state = {name: t for name, t in (make().state_dict() | change).items() if t is not None}
    with pytest.raises(RuntimeError, match=f"weight: QuantLinear: {message}"):
        module.load_state_dict(state)
    now = dict(module.named_parameters())
    assert now.keys() == before.keys()
    assert all(now[name] is t and torch.equal(t, value) for name, (t, value) in before.items())


def test_arguments_that_do_not_fit_are_refused():
    weight, a, b = make().weight, torch.zeros(R, K), torch.zeros(N, R)
    refused = {
        r"low_rank must be a pair A \[r, K\], B \[N, r\] of tensors, got Tensor": a,
        r"low_rank must be a pair .* got \['Tensor', 'NoneType'\]": (a, None),
        "low_rank_b must be a floating-point tensor or None, got float": (a, 1.0),
        "low_rank_a must be a floating-point tensor or None, got torch.int32": (a.int(), b),
        r"low_rank_a must have shape \[4, 75\], got \[4, 74\]": (a[:, 1:], b),
        r"low_rank_b must have shape \[70, 4\], got \[70, 3\]": (a, b[:, 1:]),
        "low_rank_b must be on cpu, got meta": (a, b.to("meta")),
    }
    for message, pair in refused.items():
        with pytest.raises((TypeError, ValueError), match=f"QuantLinear: {message}"):
            QuantLinear(weight, low_rank=pair)
    for rank, message in ((-1, "at least 0, got -1"), (2.0, "an integer, got 2.0")):
        with pytest.raises((TypeError, ValueError), match=f"rank must be {message}"):
            QuantLinear.from_linear(torch.nn.Linear(4, 4), rank=rank)
        with pytest.raises((TypeError, ValueError), match=f"rank must be {message}"):
            plain().add_low_rank(rank)


def test_quantize_model_with_a_rank():
    model = torch.nn.Sequential(torch.nn.Linear(K, N), torch.nn.ReLU(), torch.nn.Linear(N, 2))
    original = copy.deepcopy(model)
    lowbit.quantize_model(model, bits=2, group_size=32, rank=8, progress=False)
    assert [model[i].low_rank_a.shape[0] for i in (0, 2)] == [8, 2]
    weights = sum(model[i].weight.nbytes for i in (0, 2))
    pairs = sum(side.nbytes for i in (0, 2) for side in model[i].low_rank)
    assert model.lowbit_report.bytes_after == weights + pairs
    coarse = lowbit.quantize_model(copy.deepcopy(original), bits=2, group_size=32, progress=False)
    x = inputs(64)
    with torch.no_grad():
        errors = [(m(x) - original(x)).norm() for m in (model, coarse)]
    assert errors[0] < errors[1]


def test_parametrized_addends_are_used():
    class Doubled(torch.nn.Module):
        def forward(self, tensor):
            return 2 * tensor

    module, doubled = make(), make()
    for name in ("bias", "low_rank_b"):
        torch.nn.utils.parametrize.register_parametrization(doubled, name, Doubled())
    with torch.no_grad():
        module.bias.mul_(2), module.low_rank_b.mul_(2)
    assert torch.equal(doubled(inputs()), module(inputs()))
