"""quantize_weight: every bound here follows from the rules in docs/formats.md."""

import threading

import pytest
import torch

import lowbit
from lowbit import quantize_weight
from lowbit.formats import quantization_rules, quantize
from lowbit.formats.tables import TABLE_NAMES, element_table
from tests.properties import given, st

E4M3, E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu
# Half an ulp of each scale dtype, relative: what rounding may take off a scale. e8m0 rounds up.
SCALE_ROUNDING = {
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    E4M3: 2.0**-4,
    E8M0: 0.0,
}
ELEMENTS = [("uint", False), ("uint", True), *((name, False) for name in TABLE_NAMES)]
UNSIGNED_TOP = {bits: 2**bits - 1 for bits in range(1, 9)}


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scale_of_columns(qweight):
    """The factor of each weight [N, K] in float64."""
    scales = qweight.scales.float().double()
    if qweight.s0 is not None:
        scales = (qweight.scales.float() * qweight.s0).double()
    columns = scales.repeat_interleave(qweight.group_size, 1)
    return columns[:, : qweight.shape[1]]


def steps_off(w, qweight):
    """|w - dequantized| in units of the scale, less what float32 arithmetic itself may lose."""
    scale = scale_of_columns(qweight)
    error = (w.double() - qweight.dequantize().double()).abs()
    return ((error - 2.0**-22 * w.double().abs()) / scale).max().item()


def check_affine(w, bits, **options):
    qweight = quantize_weight(w, bits=bits, **options)
    lost = SCALE_ROUNDING[qweight.scales.dtype] * UNSIGNED_TOP[bits]
    assert steps_off(w.float(), qweight) <= 0.5 + lost
    return qweight


@pytest.mark.parametrize("scale_dtype", SCALE_ROUNDING)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [False, True])
def test_error_is_half_a_step_and_the_rounding_of_the_scale(bits, symmetric, scale_dtype):
    w = normal(7, 200, seed=bits)
    qweight = check_affine(w, bits, group_size=48, symmetric=symmetric, scale_dtype=scale_dtype)
    assert qweight.scales.dtype == scale_dtype
    assert qweight.zero_kind == ("midpoint" if symmetric else "code")


@given(
    st.integers(2, 8),
    st.integers(1, 40),
    st.sampled_from([-1, 1, 3, 16, 64]),
    st.booleans(),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
)
def test_error_never_exceeds_a_step(bits, n, group, symmetric, row):
    w = torch.tensor([row]) * torch.linspace(-1, 1, n).unsqueeze(1)
    scale_dtype = torch.float32
    qweight = quantize_weight(
        w, bits=bits, group_size=group, symmetric=symmetric, scale_dtype=scale_dtype
    )
    assert steps_off(w, qweight) <= 0.5 + 1e-4


def test_symmetric_scale_uses_the_whole_twos_complement_range():
    w = torch.tensor([[7.0, -8.0, 0.0, 3.0], [7.0, -4.0, 1.0, 0.0], [-16.0, 1.0, 2.0, 0.0]])
    qweight = quantize_weight(w, group_size=-1, symmetric=True, scale_dtype=torch.float32)
    assert qweight.scales.flatten().tolist() == [1.0, 1.0, 2.0]
    assert torch.equal(qweight.dequantize()[:2], w[:2])


def test_asymmetric_scale_and_zero_by_hand():
    w = torch.tensor([[-3.0, 12.0, 0.0, 5.0], [2.0, 15.0, 1.0, 1.0], [-30.0, -2.0, 0.0, -8.0]])
    qweight = quantize_weight(w, group_size=4, scale_dtype=torch.float32)
    assert qweight.scales.flatten().tolist() == [1.0, 1.0, 2.0]
    assert qweight.zeros.dtype == torch.uint8
    assert qweight.zeros.flatten().tolist() == [3, 0, 15]
    assert torch.equal(qweight.dequantize(), w)


@pytest.mark.parametrize("search", ["none", "mse"])
@pytest.mark.parametrize("scale_dtype", [torch.float16, torch.bfloat16, E4M3])
def test_codes_belong_to_the_scale_that_is_stored(scale_dtype, search):
    """Each code is the nearest under the stored scale and zero, not under the unrounded ones."""
    check_codes_are_nearest(scale_dtype, search)


def check_codes_are_nearest(scale_dtype, search):
    w = normal(16, 96)
    qweight = quantize_weight(w, group_size=32, scale_dtype=scale_dtype, search=search)
    scale = scale_of_columns(qweight)
    zeros = qweight.zeros.double().repeat_interleave(32, 1)
    codes = (w.double() / scale).round().add(zeros).clamp(0, 15)
    stored = (qweight.dequantize().double() / scale).round() + zeros
    far_from_tie = ((w.double() / scale) % 1 - 0.5).abs() > 1e-5
    assert torch.equal(codes[far_from_tie], stored[far_from_tie])
    assert far_from_tie.float().mean() > 0.99


@pytest.mark.parametrize(("element", "symmetric"), ELEMENTS)
@pytest.mark.parametrize("scale_dtype", SCALE_ROUNDING)
def test_search_never_loses(element, scale_dtype, symmetric):
    w = normal(12, 100, seed=3)
    w[3, 7] = 40.0
    options = {"group_size": 32, "scale_dtype": scale_dtype, "element": element}
    options |= {"symmetric": symmetric}
    plain, searched = (
        _group_errors(w, quantize_weight(w, search=search, **options)) for search in ("none", "mse")
    )
    assert (searched <= plain * (1 + 1e-5)).all()
    if scale_dtype != E8M0:  # a third less is not yet another power of two
        assert searched.sum() < 0.99 * plain.sum()


def _group_errors(w, qweight):
    error = (qweight.dequantize() - w).double().square()
    return torch.stack([piece.sum(1) for piece in error.split(qweight.group_size, 1)], 1)


@pytest.mark.parametrize("scale_dtype", SCALE_ROUNDING)
@pytest.mark.parametrize(("element", "symmetric"), ELEMENTS)
@pytest.mark.parametrize("search", ["none", "mse"])
def test_zeros_stay_zeros_with_scale_one(element, symmetric, scale_dtype, search):
    options = {"element": element, "symmetric": symmetric, "search": search}
    qweight = quantize_weight(torch.zeros(3, 10), group_size=4, scale_dtype=scale_dtype, **options)
    assert torch.equal(qweight.scales.float(), torch.ones(3, 3))
    assert torch.equal(qweight.dequantize(), torch.zeros(3, 10))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.5, -0.5, 3.0, -1000.0])
def test_constant_groups(bits, symmetric, value):
    w = torch.full((2, 9), value)
    qweight = quantize_weight(
        w, bits=bits, group_size=4, symmetric=symmetric, scale_dtype=torch.float32
    )
    assert torch.allclose(qweight.dequantize(), w, rtol=2.0**-21, atol=0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_one_outlier_takes_the_range_and_loses_nothing_itself(bits):
    w = normal(1, 128) * 1e-3
    w[0, 77] = 1e4
    qweight = quantize_weight(w, bits=bits, scale_dtype=torch.float32, group_size=128)
    error = (qweight.dequantize() - w).abs()
    step = qweight.scales.item()
    assert error.max() <= step * (0.5 + 2.0**-16)
    assert error[0, 77] <= -w.min() + 1e4 * 2.0**-22  # the range is wider by the smallest weight


@pytest.mark.parametrize("scale_dtype", SCALE_ROUNDING)
@pytest.mark.parametrize("magnitude", [1e-45, 1e-42, 1e-38, 1e-30, 1e-9])
@pytest.mark.parametrize("element", ["uint", "e2m1"])
def test_tiny_weights_stay_tiny_and_finite(magnitude, scale_dtype, element):
    w = torch.cat([torch.full((1, 8), magnitude), torch.linspace(-1, 1, 8)[None] * magnitude])
    qweight = quantize_weight(w, group_size=8, scale_dtype=scale_dtype, element=element)
    scale = scale_of_columns(qweight)
    assert (scale > 0).all()
    error = (qweight.dequantize().double() - w.double()).abs()
    assert (error <= scale * 1.5).all()


@pytest.mark.parametrize(
    ("element", "symmetric", "bits"),
    [("uint", s, b) for s in (False, True) for b in (2, 3, 4, 8)]
    + [(name, False, 4) for name in TABLE_NAMES],
)
def test_e8m0_scales_are_powers_of_two_that_never_clip(element, bits, symmetric):
    w = normal(32, 64, seed=bits) * torch.logspace(-30, 30, 32).unsqueeze(1)
    qweight = quantize_weight(
        w, bits=bits, element=element, symmetric=symmetric, scale_dtype=E8M0, group_size=16
    )
    scales = qweight.scales.float()
    assert torch.equal(torch.frexp(scales)[0], torch.full_like(scales, 0.5))
    widest = 0.5
    if element != "uint":
        widest = element_table(element).sort().values.diff().max().item() / 2
    assert steps_off(w, qweight) <= widest + 2.0**-16
    # and they are no larger than that needs
    plain = quantize_weight(
        w, bits=bits, element=element, symmetric=symmetric, scale_dtype=torch.float32, group_size=16
    )
    assert (scales < 2 * plain.scales).all()


def test_power_of_two_rounding_by_hand():
    given_scales = torch.tensor([1.0, 1.0000001, 0.75, 2.0**-127, 2.0**-130, 2.0**127, 3.0])
    rounded = quantize.round_up_to_power_of_two(given_scales).float().double().tolist()
    assert rounded == [1.0, 2.0, 1.0, 2.0**-127, 2.0**-127, 2.0**127, 4.0]


def test_e4m3_scales_fill_their_range_with_one_second_level():
    w = normal(8, 64) * torch.logspace(-1, 1, 8).unsqueeze(1)
    qweight = quantize_weight(w, group_size=16, scale_dtype=E4M3)
    assert qweight.s0.shape == ()
    assert qweight.scales.float().max() == 448.0
    largest = quantize_weight(w, group_size=16, scale_dtype=torch.float32).scales.max()
    assert torch.allclose(qweight.s0 * 448.0, largest, rtol=1e-6)


TIES = {0.25: 0, 0.75: 1, 1.25: 1, 1.75: 2, 2.5: 2, 3.5: 4, 5.0: 4}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_e2m1_ties_go_to_the_even_code(sign):
    w = sign * torch.tensor([[6.0, *TIES]])
    qweight = quantize_weight(w, element="e2m1", group_size=-1)
    assert qweight.scales.item() == 1.0
    expected = sign * torch.tensor([[6.0, *map(float, TIES.values())]])
    assert torch.equal(qweight.dequantize(), expected)


@pytest.mark.parametrize("element", TABLE_NAMES)
def test_tables_take_the_nearest_level(element):
    table = element_table(element).double()
    w = normal(4, 96)
    qweight = quantize_weight(w, element=element, scale_dtype=torch.float32, group_size=24)
    scale = scale_of_columns(qweight)
    distances = (w.double().unsqueeze(-1) - table * scale.unsqueeze(-1)).abs()
    error = (w.double() - qweight.dequantize().double()).abs()
    assert (error <= distances.amin(-1) + 1e-6 * scale).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_table_of_your_own(bits):
    levels = torch.tensor([-1.0, 0.3, 2.0, -0.1, 0.7, -3.0, 1.5, 0.0, 9.0, 8, 7, 6, 5, 4, 3, 2])
    table = levels[: 1 << bits].contiguous()
    w = table[torch.arange(64).reshape(2, 32) % (1 << bits)]
    qweight = quantize_weight(w, bits=bits, element=table, scale_dtype=torch.float32)
    assert torch.equal(qweight.table, table)
    assert torch.allclose(qweight.dequantize(), w, rtol=1e-6)


def test_one_bit_symmetric_is_the_mean_magnitude():
    w = torch.tensor([[1.0, -3.0, 2.0, -2.0, 5.0]])
    qweight = quantize_weight(w, bits=1, symmetric=True, group_size=4, scale_dtype=torch.float32)
    assert qweight.dequantize().tolist() == [[2.0, -2.0, 2.0, -2.0, 5.0]]


def test_one_bit_asymmetric_is_the_mean_and_the_mean_spread():
    w = torch.tensor([[1.0, 2.5, 2.0, 6.5, 7.0]])
    qweight = quantize_weight(w, bits=1, group_size=4, scale_dtype=torch.float32)
    assert qweight.zero_kind == "value"
    assert qweight.dequantize().tolist() == [[1.25, 1.25, 1.25, 4.75, 7.0]]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("group", [-1, 1, 5, 32, 33, 100, 1000])
@pytest.mark.parametrize("k", [1, 33, 100])
def test_any_group_size(bits, group, k):
    qweight = quantize_weight(normal(3, k), bits=bits, group_size=group)
    expected = k if group == -1 else min(group, k)
    assert qweight.group_size == expected
    assert qweight.scales.shape == (3, -(-k // expected))
    if bits > 1:
        check_affine(normal(3, k), bits, group_size=group)


def test_a_ragged_group_is_quantized_like_a_group_of_its_own():
    w = normal(4, 70) + 5.0  # a padding zero would widen the range of a group of positive weights
    for bits, symmetric in [(1, False), (1, True), (4, False), (4, True)]:
        whole = quantize_weight(w, bits=bits, symmetric=symmetric, group_size=32)
        tail = quantize_weight(w[:, 64:], bits=bits, symmetric=symmetric, group_size=-1)
        assert torch.equal(whole.dequantize()[:, 64:], tail.dequantize())


@pytest.mark.parametrize("search", ["none", "mse"])
@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("scale_dtype", SCALE_ROUNDING)
def test_no_rows(bits, search, scale_dtype):
    qweight = quantize_weight(torch.zeros(0, 64), bits=bits, search=search, scale_dtype=scale_dtype)
    assert qweight.shape == (0, 64)
    assert qweight.dequantize().shape == (0, 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_equals_its_float32_copy(dtype):
    w = normal(5, 96, dtype=dtype)
    half = quantize_weight(w)
    assert half.scales.dtype == dtype
    _assert_same(half, quantize_weight(w.float(), scale_dtype=dtype))


def test_strides_do_not_matter():
    w = normal(6, 80)
    expected = quantize_weight(w, search="mse", group_size=32)
    for view in (w.t().contiguous().t(), torch.cat([w, w], 1)[:, :80], w.repeat(1, 2)[:, 80:]):
        _assert_same(quantize_weight(view, search="mse", group_size=32), expected)


def test_parameters_give_plain_tensors():
    qweight = quantize_weight(torch.nn.Parameter(normal(4, 32)), search="mse")
    assert not any(t is not None and t.requires_grad for t in qweight.tensors)


OPTIONS = [
    {},
    {"symmetric": True, "search": "mse"},
    {"bits": 1},
    {"bits": 1, "symmetric": True},
    {"element": "nf4", "scale_dtype": E4M3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_blocks_of_rows_equal_rows_one_by_one(options, monkeypatch):
    w = normal(13, 96)
    expected = quantize_weight(w, group_size=32, **options)
    for elements in (1, 96 * 4, 96 * 5):
        monkeypatch.setattr(quantize, "_BLOCK_ELEMENTS", elements)
        _assert_same(quantize_weight(w, group_size=32, **options), expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_thread_counts_do_not_matter(options, threads):
    """One row of one group is what torch would divide among its threads."""
    w = normal(1, 1 << 17)
    results = []
    for count in (1, 2, 3):
        threads(count)
        options = {"scale_dtype": torch.float32, **options}
        results.append(quantize_weight(w, group_size=-1, **options))
    for result in results[1:]:
        _assert_same(result, results[0])


def test_calls_from_many_threads_agree():
    w = normal(64, 256)
    expected, results = quantize_weight(w, search="mse"), [None] * 4

    def work(i):
        results[i] = quantize_weight(w, search="mse")

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        _assert_same(result, expected)


def _assert_same(one, other):
    assert one.format == other.format
    for a, b in zip(one.tensors, other.tensors, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            view = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[a.element_size()]
            assert torch.equal(a.contiguous().view(view), b.contiguous().view(view))


GOOD = torch.ones(2, 8)
BIG = "; pass scale_dtype=torch.float32 or torch.bfloat16"
REFUSED = [
    (ValueError, GOOD * float("nan"), {}, "w must be finite, got NaN or Inf"),
    (ValueError, GOOD * float("inf"), {}, "w must be finite, got NaN or Inf"),
    (ValueError, GOOD * -float("inf"), {}, "w must be finite, got NaN or Inf"),
    (TypeError, GOOD.int(), {}, "w must be float32, float16, bfloat16 or float64, got int32"),
    (TypeError, GOOD.to(torch.complex64), {}, "w must be float32, float16, bfloat16 or float64"),
    (TypeError, [[1.0]], {}, "w must be a tensor, got list"),
    (ValueError, GOOD[0], {}, "w must be a matrix [N, K] with K >= 1, got [8]"),
    (ValueError, GOOD[:, :0], {}, "w must be a matrix [N, K] with K >= 1, got [2, 0]"),
    (ValueError, GOOD, {"bits": 0}, "bits must be 1 to 8, got 0"),
    (ValueError, GOOD, {"bits": 9}, "bits must be 1 to 8, got 9"),
    (ValueError, GOOD, {"group_size": 0}, "group_size must be at least 1, or -1 for one group"),
    (ValueError, GOOD, {"group_size": -2}, "group_size must be at least 1, or -1 for one group"),
    (ValueError, GOOD, {"search": "best"}, "search must be one of none, mse, got 'best'"),
    (ValueError, GOOD, {"element": "nf5"}, "element must be one of uint, nf4, e2m1, e3m0, e1m2"),
    (ValueError, GOOD, {"element": "nf4", "bits": 3}, "element must have 2**bits entries"),
    (ValueError, GOOD, {"element": torch.ones(15)}, "element must have 2**bits entries"),
    (ValueError, GOOD, {"element": torch.zeros(16)}, "element must hold finite numbers"),
    (TypeError, GOOD, {"scale_dtype": torch.int8}, "scale_dtype must be float32, float16,"),
    (ValueError, GOOD * 3e6, {}, "w must give scales within the range of float16, got a scale of"),
    (ValueError, GOOD.double() * 1e300, {}, "w must be finite"),
    (
        ValueError,
        torch.tensor([[3e38, -1e38]]),
        {"bits": 2, "symmetric": True, "scale_dtype": E8M0},
        "w must give scales within the range of float8_e8m0fnu, got a scale of 3e+38" + BIG,
    ),
    (
        ValueError,
        GOOD * 1e6,
        {"bits": 1, "scale_dtype": torch.float32},
        "w must give zero points within the range of float16, got a largest weight of 1e+06",
    ),
]


@pytest.mark.parametrize(("error", "w", "options", "text"), REFUSED, ids=lambda v: str(v)[:60])
def test_refusals(error, w, options, text):
    with pytest.raises(error) as refusal:
        lowbit.quantize_weight(w, **options)
    assert str(refusal.value).startswith(f"quantize_weight: {text}")


def test_a_scale_that_is_not_stored_is_caught(monkeypatch):
    """The check can fail: with codes of the unrounded scale it does."""
    true_store = quantize._store_scales

    def unrounded(wanted, dtype, s0):
        return true_store(wanted, dtype, s0)[0], wanted

    monkeypatch.setattr(quantize, "_store_scales", unrounded)
    with pytest.raises(AssertionError):
        check_codes_are_nearest(torch.bfloat16, "none")


def test_a_clipped_code_is_caught(monkeypatch):
    too_narrow = lambda self, groups, valid: groups.abs().amax(-1) / self.top  # noqa: E731
    monkeypatch.setattr(quantization_rules.AffineRule, "scale", too_narrow)
    with pytest.raises(AssertionError):
        check_affine(normal(8, 64), 4)
