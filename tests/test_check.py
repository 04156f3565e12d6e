"""The comparison itself: it accepts every backend of this machine and refuses what is wrong."""

import math

import pytest
import torch

from lowbit import QuantizedWeight, registry
from lowbit.bench import check, oracle
from lowbit.bench.cases import CASES, Case, place
from lowbit.bench.weight_specs import WeightSpec

LINEAR = "weight_only_linear"
ALL_CASES = [case for cases in CASES.values() for case in cases]


def expect(case):
    args = case.make()
    return check.run(case.op, "reference", args), check.expected(case.op, args)


def test_every_op_has_cases_with_names_of_their_own():
    assert set(CASES) == set(registry.OPS)
    for op, cases in CASES.items():
        assert len({str(case) for case in cases}) == len(cases)
        assert all(case.op == op for case in cases)


@pytest.mark.parametrize("case", ALL_CASES[::9], ids=lambda case: f"{case.op}-{case}")
def test_cases_are_reproducible_and_fit_their_op(case):
    first, second = case.make(3), case.make(3)
    registry.OPS[case.op].check(*first)
    for a, b in zip(first, second, strict=True):
        same = a == b if not isinstance(a, torch.Tensor) else check.same_bits(a, b).all()
        assert same


def test_cases_cover_what_the_contract_names():
    cases = CASES[LINEAR]
    assert {c.weight.bits for c in cases} == set(range(1, 9))
    assert {c.m for c in cases} >= {0, 1, 2, 16, 17}
    assert {len(c.rows) for c in cases} >= {0, 1, 2, 3}
    views = {c.view for c in cases}
    assert views == {"contiguous", "offset", "padded", "strided", "transposed", "expanded"}
    assert any(c.nonfinite for c in cases) and {c.weight.cut for c in cases} == {
        "",
        "rows",
        "columns",
    }


@pytest.mark.parametrize("op", sorted(CASES))
def test_bytes_of_a_case_are_those_of_its_tensors(op):
    case = Case(op, WeightSpec(bits=3, zeros="code"), dtype=torch.bfloat16)
    args = case.make()
    tensors = [t for t in args if isinstance(t, torch.Tensor)]
    out = registry.OPS[op].allocate(*args)
    assert case.bytes == sum(t.numel() * t.element_size() for t in (*tensors, out))


@pytest.mark.parametrize("op, products", [(LINEAR, 2 * 5), ("dequantize_weight", 1)])
def test_flops_of_a_case(op, products):
    assert Case(op).flops == products * 33 * 160


@pytest.mark.parametrize("view", ["offset", "padded", "strided", "transposed"])
def test_views_lie_in_nan(view):
    values = torch.arange(12.0).reshape(3, 4)
    placed = place(values, view)
    assert torch.equal(placed, values)
    assert view == "offset" or not placed.is_contiguous()
    whole = torch.empty(0).set_(placed.untyped_storage())
    assert int(torch.isnan(whole).sum()) == whole.numel() - 12


@pytest.mark.parametrize("case", ALL_CASES[::5], ids=lambda case: f"{case.op}-{case}")
def test_the_reference_passes_and_one_wrong_element_does_not(case):
    got, want = expect(case)
    assert check.compare(got, want).failure is None
    if got.numel():
        assert check.compare(check.perturb(got, want), want).failure


def test_failure_names_the_element():
    got, want = expect(Case(LINEAR))
    got[3, 7] += 1.0
    failure = check.compare(got, want).failure
    assert "first at [3, 7]" in failure and "1 of 165 elements" in failure


def test_an_unwritten_nan_is_a_failure():
    got, want = expect(Case(LINEAR))
    got[0, 0] = math.nan
    assert "first at [0, 0]: got nan" in check.compare(got, want).failure


def test_another_sign_of_infinity_is_a_failure():
    got, want = expect(Case(LINEAR, WeightSpec(exponent=14, zeros="midpoint"), dtype=torch.float16))
    spot = tuple(torch.isinf(got).nonzero()[0].tolist())
    got[spot] = -got[spot]
    assert check.compare(got, want).failure


def test_errors_in_the_mean_are_failures_even_below_the_largest_error():
    got, want = expect(Case(LINEAR, WeightSpec(n=129), rows=(64,)))
    limit = check.compare(got, want).limit_abs
    everywhere_off = (want.oracle + 0.9 * limit).float()
    assert check.compare(everywhere_off, want).failure


def test_wrong_shape_or_dtype_is_a_failure():
    got, want = expect(Case(LINEAR))
    assert "wanted float32 [5, 33]" in check.compare(got[:4], want).failure
    assert check.compare(got.half(), want).failure


class Misbehaving:
    """An op whose kernel does what no kernel may."""

    def __init__(self, fault):
        self.fault = fault

    def allocate(self, x):
        return torch.empty_like(x)

    def out_overload(self, x, out):
        out.copy_(x)
        if self.fault == "band":
            whole = torch.empty(0).set_(out.untyped_storage())
            whole[out.storage_offset() + out.numel()] = 0.0
        else:
            x[0] = 1.0


@pytest.mark.parametrize("fault, message", [("band", "outside its output"), ("input", "inputs")])
def test_writes_outside_the_output_are_failures(monkeypatch, fault, message):
    monkeypatch.setitem(registry.OPS, "misbehaving", Misbehaving(fault))
    with pytest.raises(check.CheckFailure, match=message):
        check.run("misbehaving", "reference", (torch.zeros(4),))


def test_a_comparison_that_cannot_fail_is_a_failure(monkeypatch):
    monkeypatch.setattr(check, "perturb", lambda got, want: got)
    with pytest.raises(check.CheckFailure, match="accepts one wrong element"):
        check.check(LINEAR, "reference", Case(LINEAR))


def test_oracle_of_dequantize_is_the_value_rule_by_hand():
    codes = torch.tensor([[0, 1, 2, 7]], dtype=torch.uint8)
    scales, zeros = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.5, 3.0]])
    weight = QuantizedWeight.from_parts(codes, scales, zeros, "code", bits=3)
    want = torch.tensor([[-0.75, -0.25, -2.0, 8.0]])
    assert torch.equal(oracle.oracle_weight(*weight.tensors, weight.format), want)
    weight = QuantizedWeight.from_parts(codes, scales, zeros, "value", bits=3, s0=2.0)
    want = torch.tensor([[1.5, 2.5, 11.0, 31.0]])
    assert torch.equal(oracle.oracle_weight(*weight.tensors, weight.format), want)


def test_unavailable_backends_say_why():
    for name, backend in registry.BACKENDS.items():
        reason = check.unavailable(name)
        assert reason is None or len(reason) > 10
        assert backend.device != "cuda" or torch.cuda.is_available() or reason
    assert check.unavailable("reference") is None
