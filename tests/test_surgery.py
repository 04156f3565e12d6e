"""quantize_model: what it replaces, what it leaves and why, what it refuses."""

import builtins
import copy
import sys
import weakref

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import lowbit
from lowbit.nn import QuantLinear, surgery

quantize_model = lowbit.quantize_model


class Model(nn.Module):
    """A linear that can be replaced, and the modules under test beside it."""

    def __init__(self, **modules):
        super().__init__()
        self.plain = nn.Linear(16, 16)
        for name, module in modules.items():
            setattr(self, name, module)


def quantize(model, **options):
    return quantize_model(model, progress=False, **{"group_size": 8, **options})


def assert_skipped(model, expected, **options):
    """`plain` is replaced; `expected` (name -> part of the reason) is all that is skipped."""
    before = {name: (m, type(m)) for name, m in model.named_modules(remove_duplicate=False)}
    report = quantize(model, **options).lowbit_report
    assert [layer.name for layer in report.layers] == ["plain"]
    assert isinstance(model.plain, QuantLinear)
    assert report.skipped.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in report.skipped[name]
        assert model.get_submodule(name) is before[name][0]
        assert type(model.get_submodule(name)) is before[name][1]
    return report


def test_every_linear_is_replaced_by_its_quantized_self():
    model = nn.Sequential(nn.Linear(16, 32), nn.ModuleDict({"a": nn.Linear(32, 8, bias=False)}))
    original = copy.deepcopy(model).eval()
    assert quantize(model.eval(), bits=3, element="uint", search="mse", mode="bf16") is model
    for name in ("0", "1.a"):
        mine, linear = model.get_submodule(name), original.get_submodule(name)
        expected = lowbit.quantize_weight(linear.weight, bits=3, group_size=8, search="mse")
        assert torch.equal(mine.weight.dequantize(), expected.dequantize())
        assert (mine.bias is None) == (linear.bias is None)
        assert mine.mode == "bf16" and not mine.training
    assert not model.lowbit_report.skipped


def test_defaults_are_those_of_quantize_weight():
    model = quantize_model(nn.Sequential(nn.Linear(256, 8)), prepack=False, progress=False)
    original = nn.Linear(256, 8)
    expected = lowbit.quantize_weight(original.weight)
    assert model[0].weight.format == expected.format
    assert model[0].scales.dtype == expected.scales.dtype


def test_report_counts_bytes_and_bits():
    model = Model(norm=nn.LayerNorm(16), lm_head=nn.Linear(16, 4))
    report = assert_skipped(model, {"lm_head": "skip='lm_head'"}, prepack=False)
    layer = report.layers[0]
    # 16 rows of: 16 codes of 4 bits, 2 groups with a float16 scale and a uint8 zero point.
    assert (layer.bytes_before, layer.bytes_after) == (16 * 16 * 4, 16 * (8 + 2 * 3))
    assert (layer.in_features, layer.out_features) == (16, 16)
    assert report.effective_bits == 8 * 16 * 14 / 256
    rest = 4 * (16 + 2 * 16 + 4 * 16 + 4)
    assert report.model_bytes_before == layer.bytes_before + rest
    assert report.model_bytes_after == layer.bytes_after + rest
    assert str(report).splitlines() == [
        "linear layers quantized: 1 (1.0 kB -> 224 bytes, 7.00 bits a weight)",
        "whole model: 1.5 kB -> 688 bytes",
        "linear layers left as they were: 1",
        "  lm_head: skip='lm_head'",
    ]


def test_each_float_weight_is_freed_before_the_next_is_quantized(monkeypatch):
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
    weights = [weakref.ref(linear.weight) for linear in model]
    alive = []
    original = QuantLinear.from_linear.__func__

    def from_linear(cls, linear, **options):
        alive.append(sum(weight() is not None for weight in weights))
        return original(cls, linear, **options)

    monkeypatch.setattr(QuantLinear, "from_linear", classmethod(from_linear))
    quantize(model)
    assert alive == [4, 3, 2, 1]
    assert not any(weight() is not None for weight in weights)


# What stays, one test each.


def test_subclasses_of_linear_stay():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert_skipped(Model(scaled=Scaled(16, 16)), {"scaled": "a Scaled, a subclass of Linear"})


def test_multihead_attention_stays_and_works():
    model = Model(attention=nn.MultiheadAttention(16, 2)).eval()
    x = torch.randn(3, 1, 16)
    before = model.attention(x, x, x)[0]
    reason = "MultiheadAttention reads its weight"
    assert_skipped(model, {"attention.out_proj": reason})
    assert torch.equal(model.attention(x, x, x)[0], before)


def test_encoder_layers_stay_and_take_their_fast_path():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = Model(encoder=nn.TransformerEncoder(layer, 1)).eval()
    reason = "TransformerEncoderLayer reads its weight"
    names = ("encoder.layers.0.linear1", "encoder.layers.0.linear2")
    attention = {"encoder.layers.0.self_attn.out_proj": "MultiheadAttention reads its weight"}
    assert_skipped(model, dict.fromkeys(names, reason) | attention)
    with torch.inference_mode():
        assert model.encoder(torch.randn(1, 3, 16)).shape == (1, 3, 16)


def test_decoder_layers_are_quantized_but_for_their_attention():
    model = nn.ModuleList([nn.TransformerDecoderLayer(16, 2, 32)]).eval()
    report = quantize(model).lowbit_report
    assert [layer.name for layer in report.layers] == ["0.linear1", "0.linear2"]
    assert set(report.skipped) == {"0.self_attn.out_proj", "0.multihead_attn.out_proj"}
    assert model[0](torch.randn(2, 1, 16), torch.randn(4, 1, 16)).shape == (2, 1, 16)


def tied(linear, weight):
    linear.weight = weight
    return linear


def test_a_weight_tied_to_an_embedding_stays():
    embedding = nn.Embedding(16, 16)
    model = Model(embedding=embedding, head=tied(nn.Linear(16, 16), embedding.weight))
    assert_skipped(model, {"head": "shares memory with embedding.weight"})
    assert model.head.weight is model.embedding.weight


def test_linears_that_share_a_parameter_stay():
    first = nn.Linear(16, 16)
    model = Model(first=first, second=tied(nn.Linear(16, 16), first.weight))
    reasons = {"first": "shares memory with second.weight", "second": "with first.weight"}
    assert_skipped(model, reasons)


def test_weights_that_overlap_in_memory_stay_and_neighbours_do_not():
    memory = torch.randn(64, 16)
    table = nn.Embedding(32, 16)
    table.weight = nn.Parameter(memory[:32])
    inside = tied(nn.Linear(16, 8), nn.Parameter(memory[4:12]))
    beside = tied(nn.Linear(16, 8), nn.Parameter(memory[32:40]))
    model = Model(table=table, inside=inside, beside=beside)
    report = quantize(model).lowbit_report
    assert report.skipped == {"inside": "its weight shares memory with table.weight"}
    assert [layer.name for layer in report.layers] == ["plain", "beside"]


def test_a_shared_bias_is_no_tie():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.bias = first.bias
    model = quantize(nn.Sequential(first, second))
    assert not model.lowbit_report.skipped
    assert model[0].bias is model[1].bias


def test_a_module_with_two_names_is_quantized_once_and_stays_one():
    shared = nn.Linear(16, 16)
    block = nn.Sequential(nn.Linear(16, 16))
    model = Model(first=shared, second=nn.Sequential(shared), a=block, b=block)
    report = quantize(model).lowbit_report
    assert model.first is model.second[0] and isinstance(model.first, QuantLinear)
    assert model.a is model.b and isinstance(model.a[0], QuantLinear)
    assert [layer.name for layer in report.layers] == ["plain", "first", "a.0"]


def test_a_module_skipped_by_one_name_stays_under_all():
    shared = nn.Linear(16, 16)
    model = Model(first=shared, second=nn.Sequential(shared))
    assert_skipped(model, {"first": "skip='second'", "second.0": "skip='second'"}, skip="second")


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "compute",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda m: nn.utils.prune.l1_unstructured(m, "weight", 3),
    ],
    ids=["parametrization", "weight_norm", "spectral_norm", "pruning"],
)
def test_computed_weights_stay(compute):
    assert_skipped(Model(layer=compute(nn.Linear(16, 16))), {"layer": "its weight is computed"})


def test_meta_weights_stay():
    model = Model(layer=nn.Linear(16, 16, device="meta"))
    assert_skipped(model, {"layer": "on the meta device"})


@pytest.mark.parametrize(
    "register",
    [
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None),
        lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    ],
    ids=["forward", "forward_pre", "backward", "backward_pre"],
)
def test_modules_with_hooks_stay(register):
    model = Model(layer=nn.Linear(16, 16))
    register(model.layer)
    assert_skipped(model, {"layer": "it has hooks, which would be lost"})


def test_a_replaced_forward_stays():
    model = Model(layer=nn.Linear(16, 16))
    model.layer.forward = lambda x: x
    assert_skipped(model, {"layer": "its forward was replaced"})


def test_a_linear_with_more_state_stays():
    model = Model(layer=nn.Linear(16, 16))
    model.layer.register_buffer("steps", torch.zeros(1))
    model.layer.adapter = nn.Conv1d(1, 1, 1)
    assert_skipped(model, {"layer": "more than weight and bias: adapter, steps"})


def test_weights_of_another_kind_stay():
    class Wrapped(torch.Tensor):
        pass

    wrapped = nn.Parameter(torch.randn(16, 16).as_subclass(Wrapped))
    integers = nn.Parameter(torch.zeros(16, 16, dtype=torch.int8), requires_grad=False)
    model = Model(
        wrapped=tied(nn.Linear(16, 16), wrapped),
        integers=tied(nn.Linear(16, 16), integers),
        narrow=tied(nn.Linear(1, 16), nn.Parameter(torch.zeros(16, 0))),
    )
    reasons = {"wrapped": "is a Wrapped", "integers": "is int8", "narrow": "no columns"}
    assert_skipped(model, reasons)


def test_quantized_layers_are_left_alone():
    model = Model(head=nn.Linear(16, 16))
    quantize(model, bits=8, skip="head")
    plain = model.plain
    quantize(model, bits=2)
    assert model.plain is plain and plain.weight.bits == 8 and model.head.weight.bits == 2
    assert model.lowbit_report.skipped == {"plain": "it is quantized"}


# The skip patterns.


@pytest.mark.parametrize(
    "skip, stay",
    [
        ("last", {"net.last"}),
        (["0"], {"net.0.0", "net.0.1"}),
        ("net.0", {"net.0.0", "net.0.1"}),
        ("net.?.1", {"net.0.1"}),
        (("*.last", "net.0.0"), {"net.last", "net.0.0"}),
        ((), set()),
    ],
)
def test_patterns(skip, stay):
    net = nn.ModuleDict(
        {"0": nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), "last": nn.Linear(16, 16)}
    )
    report = quantize(Model(net=net), skip=skip).lowbit_report
    assert set(report.skipped) == stay
    replaced = {layer.name for layer in report.layers}
    assert replaced == {"plain", "net.0.0", "net.0.1", "net.last"} - stay


def test_the_default_skips_all_of_the_head():
    model = Model(lm_head=nn.Sequential(nn.Linear(16, 16), nn.GELU()))
    assert_skipped(model, {"lm_head.0": "skip='lm_head'"})


def test_a_pattern_that_matches_nothing_is_refused():
    model = Model()
    message = "quantize_model: skip must hold patterns that match a module, got 'plian'"
    with pytest.raises(ValueError, match=message):
        quantize(model, skip=("lm_head", "plian"))
    assert type(model.plain) is nn.Linear


# Refusals change nothing.


@pytest.mark.parametrize(
    "value, message",
    [
        (float("nan"), "last.0: quantize_weight: w must be finite"),
        (1e7, "last.0: quantize_weight: w must give scales within the range of float16"),
    ],
)
def test_a_bad_weight_is_refused_before_any_change(value, message):
    model = Model(last=nn.Sequential(nn.Linear(16, 16)))
    with torch.no_grad():
        model.last[0].weight[3, 5] = value
    before = copy.deepcopy(model)
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=message):
        quantize(model)
    assert dict(model.named_modules()) == modules
    assert not hasattr(model, "lowbit_report")
    for mine, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine.nan_to_num(-1), other.nan_to_num(-1))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bits": 9}, "bits must be 1 to 8, got 9"),
        ({"group_size": 0}, "group_size must be at least 1"),
        ({"element": "int4"}, "element must be one of uint"),
        ({"search": "best"}, "search must be one of"),
        ({"mode": "fast"}, "mode must be one of exact"),
        ({"rank": -1}, "quantize_model: rank must be at least 0, got -1"),
    ],
)
@pytest.mark.parametrize("model", [Model(), nn.Sequential(nn.ReLU())], ids=["linear", "none"])
def test_bad_options_are_refused_even_with_nothing_to_replace(model, options, message):
    with pytest.raises(ValueError, match=message):
        quantize(model, **options)
    assert not any(isinstance(module, QuantLinear) for module in model.modules())


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got Tensor"):
        quantize(torch.zeros(1))
    message = "model must contain its linears, got a Linear itself; use lowbit.nn.QuantLinear"
    with pytest.raises(TypeError, match=message):
        quantize(nn.Linear(16, 16))


def test_nothing_to_replace_warns():
    with pytest.warns(UserWarning, match="quantize_model: no linear layer was quantized"):
        quantize(nn.Sequential(nn.ReLU()))


# Progress.


def test_progress_goes_to_stderr_and_can_be_silent(capsys, monkeypatch):
    real = builtins.__import__

    def without_rich(name, *args, **kwargs):
        if name.partition(".")[0] == "rich":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    quantize(Model())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(builtins, "__import__", without_rich)
    quantize_model(Model(last=nn.Linear(16, 16)))
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == ["quantizing 1/2 plain", "quantizing 2/2 last"]


def test_progress_with_rich(capsys):
    pytest.importorskip("rich")
    quantize_model(Model())
    assert capsys.readouterr().out == ""


def test_progress_on_a_terminal_without_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    quantize_model(Model())
    assert capsys.readouterr().err == "\r\033[Kquantizing 1/1 plain\r\033[K"


def test_the_table_of_the_caller_is_not_shared():
    table = torch.linspace(-1, 1, 16)
    model = quantize(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), element=table)
    expected = model[1].table.clone()
    table.zero_()
    model[0].table.zero_()
    assert torch.equal(model[1].table, expected)


def test_ties_are_found_among_nested_and_touching_pieces():
    memory = torch.zeros(100)
    pieces = {"a": (0, 50), "b": (10, 20), "c": (30, 60), "d": (60, 70), "e": (65, 66)}
    model = nn.ParameterDict({n: nn.Parameter(memory[i:j]) for n, (i, j) in pieces.items()})
    model["far"] = nn.Parameter(memory[80:])
    assert surgery._ties(model) == {"a": "b", "b": "a", "c": "a", "d": "e", "e": "d"}
