"""dequantize_weight: every case on every runner, bit for bit."""

import pytest
import torch

import lowbit
from lowbit import QuantizedWeight, dequantize_weight, quantize_weight
from lowbit.bench.cases import CASES
from lowbit.bench.check import check
from lowbit.formats import weight_format

OP = "dequantize_weight"


@pytest.mark.parametrize("case", CASES[OP], ids=str)
def test_case(case, runner):
    check(OP, runner, case)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
def test_public_function(dtype, runner):
    weight = quantize_weight(torch.randn(9, 70), group_size=32)
    result = dequantize_weight(weight, dtype)
    assert result.dtype == (dtype or torch.float32)
    assert torch.equal(result, weight.dequantize(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounds_once_from_float32(dtype, runner):
    """Rounding float16 through bfloat16, or truncating, would change one of these neighbours."""
    eps = torch.finfo(dtype).eps
    near = 2.0**-23
    scales = torch.tensor([1 + eps / 2, 1 + 1.5 * eps, 1 + eps / 2 + near, 1 + eps / 2 - near])
    weight = QuantizedWeight.from_parts(torch.ones(4, 3, dtype=torch.uint8), scales)
    expected = torch.tensor([1.0, 1 + 2 * eps, 1 + eps, 1.0])
    assert torch.equal(dequantize_weight(weight, dtype).float(), expected[:, None].expand(4, 3))


def test_results_do_not_depend_on_threads(native_runner, threads):
    weight = quantize_weight(torch.randn(300, 1000), bits=3, group_size=48)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(lowbit.dequantize_weight(weight))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("weight", "dtype", "text"),
    [
        ("w", None, "qweight must be a QuantizedWeight, got str; make one with lowbit.quantize_w"),
        (torch.ones(2, 2), None, "qweight must be a QuantizedWeight, got Tensor; make one"),
        (None, torch.int8, "dtype must be float32, float16 or bfloat16, got int8"),
        (None, torch.float64, "dtype must be float32, float16 or bfloat16, got float64"),
    ],
)
def test_refusals(weight, dtype, text, runner):
    weight = quantize_weight(torch.ones(2, 8)) if weight is None else weight
    with pytest.raises(TypeError) as refusal:
        dequantize_weight(weight, dtype)
    assert str(refusal.value).startswith(f"{OP}: {text}")


@pytest.mark.parametrize("bug", ["zero", "group", "plane"])
def test_the_check_catches(bug, monkeypatch):
    """The comparison fails for a wrong zero point, a swapped group and a swapped plane."""
    from lowbit.ops import dequantize_weight as op

    true = weight_format.dequantize_parts

    def wrong(qweight, scales, zeros, table, s0, fmt):
        if bug == "plane":
            qweight = qweight.flip(1)
        if bug == "group":
            scales = scales.flip(1)
        if bug == "zero":
            zeros = zeros.float() + 1
        return true(qweight, scales, zeros, table, s0, fmt)

    monkeypatch.setattr(op, "dequantize_parts", wrong)
    usable = [c for c in CASES[OP] if c.weight.zeros == "code" and c.weight.n and not c.weight.cut]
    case = next(c for c in usable if c.weight.bits == 3 and c.weight.k > 2 * c.weight.block_k > 0)
    with pytest.raises(AssertionError):
        check(OP, "reference", case)
