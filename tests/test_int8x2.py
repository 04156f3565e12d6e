"""The mode int8x2: the reference against scalar arithmetic, its error, and numbers not finite."""

import math
from fractions import Fraction

import pytest
import torch

from lowbit import QuantizedWeight, quantize_weight
from lowbit.formats import int8x2
from lowbit.formats.int8x2 import matmul_int8x2
from lowbit.formats.matmul import matmul_in_mode
from lowbit.formats.numerics import BF16, EXACT, FP16, INT8X2, default_mode, fma
from tests.properties import given, st
from tests.test_weights import codes_of, f32, numbers, weights
from tests.weight_cases import assert_same_bits

NAN, INF = math.nan, math.inf


# ---- fma ----


def nearest_float32(value: Fraction) -> float:
    """Rounded half to even, by exact distances to the three nearest float32 numbers."""
    guess = torch.tensor(float(value), dtype=torch.float64).float()
    around = (guess, *(torch.nextafter(guess, torch.tensor(end)) for end in (-INF, INF)))
    ranked = [
        (abs(Fraction(t.item()) - value), int(t.view(torch.int32)) & 1, t.item())
        for t in around
        if torch.isfinite(t)
    ]
    return min(ranked)[2]


def scalar_fma(a: float, b: float, c: float) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    value = Fraction(a) * Fraction(b) + Fraction(c)
    if abs(value) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        return INF if value > 0 else -INF
    return nearest_float32(value) if value else a * b + c


def false_ties(generator):
    """Sums 2**-70 beside the middle of two float32 numbers: to float64 they are in the middle."""
    c = 1 + torch.randint(0, 1 << 23, (200,), generator=generator) * 2.0**-23
    sign = torch.randint(0, 2, (200,), generator=generator) * 2.0 - 1
    return torch.full((200,), 1 + 2.0**-23), sign * 2.0**-24 * (1 - 2.0**-23), c


def fma_arguments() -> dict[str, tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, generator=generator) for _ in range(3))
    special = torch.tensor([0.0, -0.0, 1.0, INF, -INF, NAN])
    return {
        "normal": (a, b, c),
        "cancelling": (a, b, -a * b),
        "subnormal": (a * 1e-30, b * 1e-15, c * 1e-44),
        "large": (a * 1e30, b * 1e8, c * 1e38),
        "false ties": false_ties(generator),
        "special": torch.cartesian_prod(special, special, special).t().contiguous().unbind(),
    }


@pytest.mark.parametrize("name", fma_arguments())
def test_fma_rounds_once(name):
    a, b, c = fma_arguments()[name]
    triples = zip(*(t.tolist() for t in (a, b, c)), strict=True)
    want = torch.tensor([scalar_fma(*triple) for triple in triples], dtype=torch.float64).float()
    assert_same_bits(fma(a, b, c), want)


def test_float64_alone_would_not_do():
    a, b, c = false_ties(torch.Generator().manual_seed(0))
    assert not torch.equal((a.double() * b.double() + c.double()).float(), fma(a, b, c))


# ---- the mode, one number at a time from docs/numerics.md ----


def scalar_rows(x: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
    return torch.tensor(
        [[scalar_sum(row, weight, n) for n in range(weight.shape[0])] for row in x.tolist()],
        dtype=torch.float64,
    ).float()


def scalar_sum(x: list[float], weight: QuantizedWeight, n: int) -> float:
    _, bits, _, k, block_n, block_k, _, _ = weight.format
    codes = codes_of(weight.qweight[n].numpy().tobytes(), bits, k)
    total = 0.0
    for start in range(0, k, block_k):
        stop = min(start + block_k, k)
        planes, remainder = scalar_planes(weight, n, n // block_n, start // block_k)
        for first in range(start, stop, 128):
            columns = range(first, min(first + 128, stop))
            scale, q = scalar_chunk([x[j] for j in columns])
            for levels, offset, factor in planes:
                pairs = zip(q, columns, strict=True)
                product = sum((levels[codes[j]] - offset) * i for i, j in pairs)
                total = scalar_fma(f32(f32(product) * scale), factor, total)
            if remainder is not None:
                total = scalar_fma(f32(f32(sum(q)) * scale), remainder, total)
    return total


def scalar_chunk(x: list[float]) -> tuple[float, list[int]]:
    largest = max(map(abs, x))
    if not all(map(math.isfinite, x)):
        return NAN, [0] * len(x)
    if largest < 2.0**-100:
        return 0.0, [0] * len(x)
    inverse = f32(16256 / largest)
    q = [round(f32(v * inverse)) for v in x]
    assert max(map(abs, q)) <= 16256
    return f32(largest / 16256), q


def test_x_becomes_the_integers_of_the_definition():
    """On many rows: an inverse that is off by one step changes few integers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 16, generator=generator)
    scales, integers = int8x2.quantize_chunk(x)
    want = [scalar_chunk(row) for row in x.tolist()]
    assert scales.flatten().tolist() == [scale for scale, _ in want]
    assert integers.tolist() == [q for _, q in want]


def scalar_planes(weight: QuantizedWeight, n: int, row_block: int, group: int):
    """([(integer of each code, integer taken from it, factor)], remainder or None)."""
    kind, middle = weight.zero_kind, 2 ** (weight.bits - 1)
    scale = numbers(weight.scales[row_block, group])[0]
    if weight.s0 is not None:
        scale = f32(scale * numbers(weight.s0)[n if weight.s0.dim() else 0])
    zero = numbers(weight.zeros[row_block, group])[0] if weight.zeros is not None else None
    if weight.table is not None:
        remainder = {
            "none": lambda: None,
            "midpoint": lambda: f32(scale * -middle),
            "code": lambda: f32(scale * f32(0 - zero)),
            "value": lambda: zero,
        }[kind]()
        return scalar_table_planes(numbers(weight.table), scale), remainder
    codes = range(1 << weight.bits)
    if kind == "none":
        return [(codes, 0, scale)], None
    if kind == "midpoint":
        return [(codes, middle, scale)], None
    if kind == "value":
        return [(codes, middle, scale)], f32(f32(scale * middle) + zero)
    nearest = min(max(round(zero), 0), 255)
    remainder = None if weight.zeros.dtype == torch.uint8 else f32(scale * f32(nearest - zero))
    return [(codes, nearest, scale)], remainder


def scalar_table_planes(table: list[float], scale: float):
    for exponent in range(-16, 17):
        levels = [f32(t * 2.0**exponent) for t in table]
        if all(level == round(level) and abs(level) <= 127 for level in levels):
            return [([int(level) for level in levels], 0, f32(scale * 2.0**-exponent))]
    step = f32(max(map(abs, table)) / 16256)
    levels = [round(f32(t / step)) for t in table]
    high = [(level + 64) >> 7 for level in levels]
    low = [level - 128 * top for level, top in zip(levels, high, strict=True)]
    assert all(-128 <= v <= 127 for v in (*high, *low))
    return [(high, 0, f32(scale * f32(128 * step))), (low, 0, f32(scale * step))]


def input_rows(k: int, seed: int) -> torch.Tensor:
    """Normal numbers, numbers over many magnitudes, a row with zeros, and one that vanishes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, k, generator=generator)
    x[1] *= torch.exp2(torch.randint(-120, 100, (k,), generator=generator).float())
    x[2, : k // 2] = 0.0
    x[3] *= 2.0**-102
    return x


@given(weights(max_n=3, max_k=300), st.integers(0, 1000))
def test_every_bit_follows_from_the_definition(weight, seed):
    x = input_rows(weight.shape[1], seed)
    assert_same_bits(matmul_int8x2(x, weight.tensors, weight.format), scalar_rows(x, weight))


TABLES = {
    "integers": [0.0, 1.0, -1.0, 127.0],
    "halves": [0.5, 1.5, -3.0, 6.0],
    "powers": [2.0**-16, 2.0**-10, 0.0, -(2.0**-12)],
    "large": [65536.0, -131072.0, 0.0, 65536.0 * 127],
    "two planes": [0.1, -0.7, 1.0, 0.33],
    "wide": [1.0, 1e-6, -1e-3, 128.0],
    "zeros": [0.0, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", ["none", "midpoint", "code", "value"])
def test_tables_follow_the_definition(name, kind):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (3, 200), generator=generator)
    zeros = torch.randn(3, 2, generator=generator) if kind in ("code", "value") else None
    scales = torch.rand(3, 2, generator=generator)
    table = torch.tensor(TABLES[name])
    weight = QuantizedWeight.from_parts(codes, scales, zeros, kind, table, bits=2)
    x = input_rows(200, 1)
    got = matmul_int8x2(x, weight.tensors, weight.format)
    assert_same_bits(got, scalar_rows(x, weight))


def test_the_comparison_sees_one_step_of_x(monkeypatch):
    weight = quantize_weight(torch.randn(3, 64))
    x = input_rows(64, 0)
    true = int8x2.quantize_chunk

    def off(x):
        scale, integers = true(x)
        integers[0, 0] += 1
        return scale, integers

    monkeypatch.setattr(int8x2, "quantize_chunk", off)
    with pytest.raises(AssertionError):
        assert_same_bits(matmul_int8x2(x, weight.tensors, weight.format), scalar_rows(x, weight))


# ---- error ----


def relative_error(x: torch.Tensor, weight: QuantizedWeight) -> float:
    want = x.double() @ weight.dequantize().double().t()
    error = matmul_in_mode(x, weight.tensors, weight.format, INT8X2).double() - want
    return (error.square().mean() / want.square().mean()).sqrt().item()


@pytest.mark.parametrize("options", [{}, {"symmetric": True}, {"bits": 3}, {"element": "e2m1"}])
def test_error_on_normal_numbers(options):
    """A step of about 2.7 / 16256 of x gives 2.7 / 16256 / sqrt(12) = 4.8e-5."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(8, 4096, generator=generator), torch.randn(64, 4096, generator=generator)
    assert 4.0e-5 < relative_error(x, quantize_weight(w, **options)) < 6.0e-5


def test_error_of_a_table_in_two_planes():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(8, 4096, generator=generator), torch.randn(64, 4096, generator=generator)
    assert relative_error(x, quantize_weight(w, element="nf4")) < 8.0e-5


def test_an_outlier_coarsens_its_own_chunk_only():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 512, generator=generator), torch.randn(16, 512, generator=generator)
    weight = quantize_weight(w, group_size=256)
    plain = matmul_in_mode(x, weight.tensors, weight.format, INT8X2)
    x[0, 300] = 1e4
    groups = [(s, e) for s, e, _ in int8x2.chunks(weight.format)]
    assert groups == [(0, 128), (128, 256), (256, 384), (384, 512)]
    for start, stop in groups:
        part = x.clone()
        part[:, :start] = part[:, stop:] = 0
        want = part.double() @ weight.dequantize().double().t()
        error = matmul_in_mode(part, weight.tensors, weight.format, INT8X2).double() - want
        coarse = error.abs().max() > 1e-2
        assert coarse == (start == 256)
    assert torch.isfinite(plain).all()


# ---- rows ----


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("element", ["uint", "nf4"])
def test_a_row_that_is_not_finite_is_nan_and_no_other(value, element):
    generator = torch.Generator().manual_seed(0)
    weight = quantize_weight(torch.randn(9, 200, generator=generator), element=element)
    x = torch.randn(3, 200, generator=generator)
    want = matmul_int8x2(x, weight.tensors, weight.format)
    x[1, 150] = value
    got = matmul_int8x2(x, weight.tensors, weight.format)
    assert got[1].isnan().all() and torch.equal(got[::2], want[::2])


def test_rows_of_zeros_and_of_vanishing_numbers_give_zero():
    weight = quantize_weight(torch.randn(9, 200))
    x = torch.zeros(2, 200)
    x[1] = 2.0**-101
    assert torch.equal(matmul_int8x2(x, weight.tensors, weight.format), torch.zeros(2, 9))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_table_that_is_not_finite_makes_all_nan(bad):
    table = torch.tensor([0.0, 1.0, bad, 3.0])
    codes = torch.zeros(2, 40, dtype=torch.uint8)
    weight = QuantizedWeight.from_parts(codes, torch.ones(2, 1), table=table, bits=2)
    assert matmul_int8x2(torch.ones(3, 40), weight.tensors, weight.format).isnan().all()


@pytest.mark.parametrize("table", [[1e-35, -3e-36, 0.0, 2e-36], [1e-42, 0.0, 3e-43, -1e-45]])
def test_a_table_of_vanishing_levels_counts_as_zero(table):
    codes = torch.arange(80).reshape(2, 40) % 4
    table = torch.tensor(table)
    weight = QuantizedWeight.from_parts(codes, torch.ones(2, 1), table=table, bits=2)
    got = matmul_int8x2(torch.ones(3, 40), weight.tensors, weight.format)
    assert torch.equal(got, torch.zeros(3, 2))


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("part", ["scales", "zeros"])
def test_scales_and_zeros_that_are_not_finite_reach_their_own_rows(part, bad):
    codes = torch.arange(80).reshape(2, 40) % 16
    parts = {"scales": torch.ones(2, 1), "zeros": torch.full((2, 1), 7.5)}
    parts[part][1] = bad
    weight = QuantizedWeight.from_parts(codes, **parts)
    got = matmul_int8x2(torch.randn(3, 40), weight.tensors, weight.format)
    assert not torch.isfinite(got[:, 1]).any() and torch.isfinite(got[:, 0]).all()


def test_rows_do_not_depend_on_how_many_there_are(monkeypatch):
    weight = quantize_weight(torch.randn(50, 333), bits=5, group_size=96)
    x = torch.randn(2, 3, 4, 333)
    whole = matmul_int8x2(x, weight.tensors, weight.format)
    assert whole.shape == (2, 3, 4, 50)
    one = matmul_int8x2(x[1, 2, 3], weight.tensors, weight.format)
    assert one.shape == (50,) and torch.equal(one, whole[1, 2, 3])
    monkeypatch.setattr(int8x2, "_PRODUCT_ELEMENTS", 150)  # three rows at a time
    assert torch.equal(matmul_int8x2(x, weight.tensors, weight.format), whole)


@pytest.mark.parametrize(("rows", "n"), [((0,), 5), ((2, 0), 5), ((3,), 0)])
def test_nothing_to_do(rows, n):
    weight = quantize_weight(torch.randn(n, 40))
    got = matmul_int8x2(torch.ones(*rows, 40), weight.tensors, weight.format)
    assert got.shape == (*rows, n) and got.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_x_of_lower_precision_is_taken_exactly(dtype):
    weight = quantize_weight(torch.randn(9, 200))
    x = torch.randn(3, 200).to(dtype)
    want = matmul_int8x2(x.float(), weight.tensors, weight.format)
    assert torch.equal(matmul_int8x2(x, weight.tensors, weight.format), want)


def test_torch_matmul_precision_changes_nothing():
    weight = quantize_weight(torch.randn(64, 256), bits=8)
    x = torch.randn(32, 256)
    want = matmul_int8x2(x, weight.tensors, weight.format)
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert torch.equal(matmul_int8x2(x, weight.tensors, weight.format), want)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


# ---- all modes ----


@pytest.mark.parametrize("mode", [EXACT, BF16, FP16, INT8X2])
def test_a_permutation_is_that_of_x(mode):
    w, x = torch.randn(9, 100), torch.randn(3, 100)
    weight, order = quantize_weight(w, group_size=32), torch.randperm(100).int()
    want = matmul_in_mode(x[:, order.long()], weight.tensors, weight.format, mode)
    got = matmul_in_mode(x, weight.tensors, weight.format, mode, order)
    assert torch.equal(got, want)
    permuted = QuantizedWeight(*weight.tensors, weight.format, order)
    assert torch.allclose(got, x @ permuted.dequantize().t(), rtol=2e-2, atol=0.2)


def test_bf16_rounds_the_table():
    table = torch.tensor([0.1, 1.001, -2.003, 3.0])
    codes = torch.arange(40).reshape(1, 40) % 4
    weight = QuantizedWeight.from_parts(codes, torch.ones(1, 1), table=table, bits=2)
    x = torch.eye(40)
    got = matmul_in_mode(x, weight.tensors, weight.format, BF16)
    assert torch.equal(got[:4, 0], table.bfloat16().float())
    assert torch.equal(matmul_in_mode(x, weight.tensors, weight.format, EXACT)[:4, 0], table)


def test_default_modes():
    assert default_mode("cpu", torch.float32) == default_mode("cpu", torch.float16) == "int8x2"
    assert default_mode("cpu", torch.bfloat16) == "bf16"
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert default_mode("cuda", dtype) == ("exact" if dtype == torch.float32 else "dense")
        assert default_mode("meta", dtype) == default_mode("mps", dtype) == "exact"
