"""QuantizedWeight: the value rule against an oracle on bytes, from_parts, slices."""

import struct

import pytest
import torch

from lowbit import QuantizedWeight
from lowbit.formats import weight_format
from lowbit.formats.packing import unpack_codes
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES
from tests.properties import given, st

E4M3, E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu
PLANES = {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}


def f32(number: float) -> float:
    """Rounded to float32. Sums and products of two float32 stay right: a double has 2*24+2 bits."""
    try:
        return struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else -float("inf")


def e4m3(byte: int) -> float:
    exponent, mantissa = byte >> 3 & 15, byte & 7
    magnitude = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
    return -magnitude if byte & 128 else magnitude


READ = {
    torch.float32: lambda raw: struct.unpack("<f", raw)[0],
    torch.float16: lambda raw: struct.unpack("<e", raw)[0],
    torch.bfloat16: lambda raw: struct.unpack("<f", b"\0\0" + raw)[0],
    torch.uint8: lambda raw: float(raw[0]),
    E4M3: lambda raw: e4m3(raw[0]),
    E8M0: lambda raw: 2.0 ** (raw[0] - 127),
}


def numbers(tensor: torch.Tensor) -> list:
    """The values of a tensor, decoded from its bytes."""
    size = tensor.element_size()
    raw = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
    return [READ[tensor.dtype](raw[i : i + size]) for i in range(0, len(raw), size)]


def codes_of(row: bytes, bits: int, k: int) -> list[int]:
    codes, start, shift = [0] * k, 0, 0
    for width in PLANES[bits]:
        size = -(-k * width // 32) * 4
        plane = int.from_bytes(row[start : start + size], "little")
        for j in range(k):
            codes[j] |= (plane >> (j * width) & ((1 << width) - 1)) << shift
        start, shift = start + size, shift + width
    return codes


def values_of(weight: QuantizedWeight) -> list[list[float]]:
    """The value rule of docs/formats.md, one number at a time."""
    _, bits, n, k, block_n, block_k, zero_kind, _ = weight.format
    groups = -(-k // block_k)
    scales = numbers(weight.scales)
    zeros = None if weight.zeros is None else numbers(weight.zeros)
    table = None if weight.table is None else numbers(weight.table)
    s0 = [1.0] if weight.s0 is None else numbers(weight.s0)
    rows = []
    for i in range(n):
        row = []
        for j, code in enumerate(codes_of(weight.qweight[i].numpy().tobytes(), bits, k)):
            at = i // block_n * groups + j // block_k
            scale = f32(scales[at] * s0[i if len(s0) > 1 else 0])
            level = float(code) if table is None else table[code]
            if zero_kind == 1:
                level = f32(level - 2.0 ** (bits - 1))
            if zero_kind == 2:
                level = f32(level - zeros[at])
            value = f32(level * scale)
            row.append(f32(value + zeros[at]) if zero_kind == 3 else value)
        rows.append(row)
    return rows


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns of float32 numbers, so that -0.0 and 0.0 differ."""
    return tensor.contiguous().view(torch.int32)


def check_value_rule(weight: QuantizedWeight) -> None:
    expected = torch.tensor(values_of(weight), dtype=torch.float32).reshape(weight.shape)
    assert torch.equal(bits_of(weight.dequantize()), bits_of(expected))


def random_tensor(shape, dtype, generator, positive=False):
    values = torch.randn(shape, generator=generator)
    if positive:
        values = values.abs() + 0.01
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if dtype == E8M0:
        return torch.randint(100, 150, shape, generator=generator, dtype=torch.uint8).view(E8M0)
    if dtype == torch.float16:  # halves among them: mid-rise zero points
        values = (values * 4).round() / 2 + 0.5
    return values.to(dtype)


@st.composite
def weights(draw, max_n=6, max_k=70):
    n, k = draw(st.integers(0, max_n)), draw(st.integers(1, max_k))
    bits = draw(st.integers(1, 8))
    block = (draw(st.sampled_from([1, 1, 2, 3, max(n, 1)])), draw(st.sampled_from([1, 5, 16, k])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    shape = (-(-n // block[0]), -(-k // block[1]))
    kind = draw(st.sampled_from(["none", "midpoint", "code", "value"]))
    zeros = None
    if kind in ("code", "value"):
        zeros = random_tensor(shape, draw(st.sampled_from(ZERO_DTYPES)), generator)
    table = None
    if bits <= 4 and draw(st.booleans()):
        table = random_tensor((1 << bits,), torch.float32, generator)
    s0 = draw(st.sampled_from([None, 0.37, "rows"]))
    return QuantizedWeight.from_parts(
        torch.randint(0, 1 << bits, (n, k), generator=generator),
        random_tensor(shape, draw(st.sampled_from(SCALE_DTYPES)), generator),
        zeros,
        kind,
        table,
        torch.randn(n, generator=generator) if s0 == "rows" else s0,
        block,
        bits=bits,
    )


@given(weights())
def test_dequantize_follows_the_value_rule_bit_for_bit(weight):
    check_value_rule(weight)


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zeros_dtype", ZERO_DTYPES)
@pytest.mark.parametrize("kind", ["code", "value"])
def test_every_pair_of_scale_and_zero_dtypes(scale_dtype, zeros_dtype, kind):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (3, 21), generator=generator)
    scales = random_tensor((3, 3), scale_dtype, generator)
    zeros = random_tensor((3, 3), zeros_dtype, generator)
    weight = QuantizedWeight.from_parts(codes, scales, zeros, kind, block=(1, 8))
    assert weight.zeros.dtype == zeros_dtype
    check_value_rule(weight)


@pytest.mark.parametrize("dtype", [E4M3, E8M0])
def test_every_byte_of_an_eight_bit_scale(dtype):
    finite = [
        b for b in range(256) if (b & 127 if dtype == E4M3 else b) != (127, 255)[dtype == E8M0]
    ]
    scales = torch.tensor(finite, dtype=torch.uint8).view(dtype)
    check_value_rule(QuantizedWeight.from_parts(torch.full((len(finite), 1), 3), scales))


GRANULARITIES = {
    "tensor": (torch.tensor(0.5), None, (4, 12)),
    "tensor of one": (torch.tensor([0.5]), None, (4, 12)),
    "row": (torch.arange(1.0, 5), None, (1, 12)),
    "group": (torch.arange(1.0, 13).reshape(4, 3), None, (1, 4)),
    "ragged group": (torch.arange(1.0, 13).reshape(4, 3), (1, 5), (1, 5)),
    "block": (torch.arange(1.0, 5).reshape(2, 2), (3, 7), (3, 7)),
    "large block": (torch.ones(1, 1), (100, 100), (100, 100)),
}


@pytest.mark.parametrize("name", GRANULARITIES)
def test_from_parts_granularities(name):
    scales, block, expected = GRANULARITIES[name]
    codes = torch.arange(48).reshape(4, 12) % 16
    weight = QuantizedWeight.from_parts(codes, scales, block=block)
    assert (weight.format.block_n, weight.format.block_k) == expected
    check_value_rule(weight)


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("zeros", [None, torch.tensor(7)])
def test_one_scale_for_any_number_of_rows(n, zeros):
    codes = torch.full((n, 6), 9)
    weight = QuantizedWeight.from_parts(codes, torch.tensor(0.5), zeros)
    expected = 4.5 if zeros is None else 1.0
    assert torch.equal(weight.dequantize(), torch.full((n, 6), expected))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_codes(dtype):
    codes = (torch.arange(20).reshape(2, 10) % 8).to(dtype)
    weight = QuantizedWeight.from_parts(codes, torch.ones(2), bits=3)
    assert torch.equal(weight.dequantize(), codes.float())


def test_integer_zeros_are_stored_small_when_they_fit():
    codes = torch.zeros(2, 4, dtype=torch.uint8)
    fits, not_fits = torch.tensor([255, 3]), torch.tensor([-1, 256])
    small = QuantizedWeight.from_parts(codes, torch.ones(2), fits)
    large = QuantizedWeight.from_parts(codes, torch.ones(2), not_fits)
    assert (small.zeros.dtype, large.zeros.dtype) == (torch.uint8, torch.float32)
    assert large.dequantize()[:, 0].tolist() == [1.0, -256.0]


ONES, CODES = torch.ones(4, 2), torch.ones(4, 8, dtype=torch.uint8)
REFUSED = [
    ((CODES * 16, ONES), {}, "codes must lie in 0..15, got 16 to 16"),
    ((CODES.int() * -1, ONES), {}, "codes must lie in 0..15, got -1 to -1"),
    ((CODES.float(), ONES), {}, "codes must be a 2-D integer tensor"),
    ((CODES[0], ONES), {}, "codes must be a 2-D integer tensor"),
    ((CODES[:, :0], ONES), {}, "codes must have at least one column, got [4, 0]"),
    ((CODES, ONES), {"bits": 9}, "bits must be 1 to 8, got 9"),
    ((CODES, torch.ones(3)), {}, "scales must have shape [], [4] or [4, G], got [3, 1]"),
    ((CODES, torch.ones(4, 3)), {}, "scales must have a G that divides K=8, got 3; pass block="),
    ((CODES, torch.ones(2, 4)), {"block": (1, 4)}, "scales must have shape [4, 2], got [2, 4]"),
    ((CODES, ONES), {"block": (0, 4)}, "block must be at least 1 by 1, got [0, 4]"),
    ((CODES, ONES, torch.ones(2, 4)), {}, "zeros must have the shape [4, 2] of scales, got [2, 4]"),
    ((CODES, ONES, torch.ones(4)), {}, "zeros must have the shape [4, 2] of scales, got [4]"),
    ((CODES, ONES), {"zero_kind": "odd"}, "zero_kind must be one of none, midpoint, code, value"),
    ((CODES, ONES), {"zero_kind": "code"}, "zeros must be a tensor for the zero kind code"),
    ((CODES, ONES, ONES), {"zero_kind": "none"}, "zeros must be None for the zero kind none"),
    ((CODES, ONES, ONES), {"zero_kind": "midpoint"}, "zeros must be None for the zero kind"),
    ((CODES, ONES.double()), {}, "scales must be float32, float16, bfloat16, float8_e4m3fn or"),
    ((CODES, ONES, ONES.double()), {}, "zeros must be uint8, float16, bfloat16 or float32"),
    ((CODES, ONES), {"table": torch.ones(8)}, "table must have shape [16], got [8]"),
    ((CODES, ONES), {"table": torch.ones(32), "bits": 5}, "table must be None above 4 bits"),
    ((CODES, ONES), {"s0": torch.ones(3)}, "s0 must have shape [4], got [3]"),
    ((CODES, ONES.to("meta")), {}, "scales must be on cpu, got meta; move all arguments to one"),
    ((CODES, torch.ones(2, 4).t()), {}, "scales must have unit stride along its last dimension"),
]


@pytest.mark.parametrize(("args", "options", "text"), REFUSED, ids=lambda v: str(v)[:50])
def test_from_parts_refusals(args, options, text):
    with pytest.raises((ValueError, TypeError)) as refusal:
        QuantizedWeight.from_parts(*args, **options)
    where, _, said = str(refusal.value).partition(": ")
    assert where.startswith("QuantizedWeight")
    assert said.startswith(text)


@given(weights(), st.data())
def test_row_slices_are_views_of_the_same_rows(weight, data):
    n, block_n = weight.format.n, weight.format.block_n
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    if start % block_n and stop > start and (start // block_n) != (stop - 1) // block_n:
        with pytest.raises(ValueError, match=f"boundary of the {block_n}-row scale blocks"):
            weight.slice_rows(start, stop)
        return
    part = weight.slice_rows(start, stop)
    assert part.shape == (stop - start, weight.shape[1])
    assert torch.equal(bits_of(part.dequantize()), bits_of(weight.dequantize()[start:stop]))
    check_value_rule(part)
    if start < stop:
        for name in ("qweight", "scales"):
            ours, theirs = getattr(part, name), getattr(weight, name)
            assert ours.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr()


@given(weights(), st.data())
def test_column_slices_equal_packing_the_slice(weight, data):
    k, block_k, bits = weight.format.k, weight.format.block_k, weight.bits
    start = data.draw(st.integers(0, (k - 1) // block_k)) * block_k
    stop = data.draw(st.integers(start + 1, k))
    part = weight.slice_columns(start, stop)
    codes = unpack_codes(weight.qweight, bits, k)[:, start:stop]
    groups = slice(start // block_k, -(-stop // block_k))
    packed = QuantizedWeight.from_parts(
        codes,
        weight.scales[:, groups],
        None if weight.zeros is None else weight.zeros[:, groups],
        weight.zero_kind,
        weight.table,
        weight.s0,
        (weight.format.block_n, min(block_k, stop - start)),
        bits=bits,
    )
    assert part.format == packed.format
    assert torch.equal(unpack_codes(part.qweight, bits, stop - start), codes)
    assert torch.equal(bits_of(part.dequantize()), bits_of(packed.dequantize()))
    assert torch.equal(bits_of(part.dequantize()), bits_of(weight.dequantize()[:, start:stop]))
    check_value_rule(part)


@pytest.mark.parametrize("bits", range(1, 9))
def test_column_slices_on_words_of_one_plane_are_views(bits):
    codes = torch.randint(0, 1 << bits, (3, 128))
    weight = QuantizedWeight.from_parts(codes, torch.ones(3, 4), bits=bits)
    part = weight.slice_columns(32, 96)
    shared = (
        part.qweight.untyped_storage().data_ptr() == weight.qweight.untyped_storage().data_ptr()
    )
    assert shared == (len(PLANES[bits]) == 1)
    assert part.scales.untyped_storage().data_ptr() == weight.scales.untyped_storage().data_ptr()


def test_an_empty_slice_inside_a_block():
    weight = QuantizedWeight.from_parts(torch.ones(4, 8, dtype=torch.uint8), torch.tensor(2.0))
    assert weight.slice_rows(2, 2).dequantize().shape == (0, 8)


@pytest.mark.parametrize(
    ("method", "range_", "text"),
    [
        ("slice_rows", (-1, 2), "slice_rows: (start, stop) must lie within 0..4"),
        ("slice_rows", (3, 2), "slice_rows: (start, stop) must lie within 0..4"),
        ("slice_rows", (0, 5), "slice_rows: (start, stop) must lie within 0..4"),
        (
            "slice_columns",
            (4, 4),
            "slice_columns: (start, stop) must lie within 0..8 and hold a",
        ),
        ("slice_columns", (2, 8), "slice_columns: start must start on a boundary of the 4-column"),
        ("slice_columns", (0, 9), "slice_columns: (start, stop) must lie within 0..8"),
    ],
)
def test_slice_refusals(method, range_, text):
    weight = QuantizedWeight.from_parts(CODES, ONES)
    with pytest.raises(ValueError) as refusal:
        getattr(weight, method)(*range_)
    assert str(refusal.value).startswith(text)


def test_sizes_count_the_metadata():
    weight = QuantizedWeight.from_parts(
        torch.zeros(8, 128, dtype=torch.uint8),
        torch.ones(8).half(),
        torch.zeros(8, dtype=torch.uint8),
    )
    assert weight.nbytes == 8 * (64 + 2 + 1)
    assert weight.effective_bits == 8 * 67 / 128
    assert (weight.bits, weight.group_size, weight.zero_kind) == (4, 128, "code")
    assert weight.shape == (8, 128)
    assert weight.format_version == 1


def _zero_off_by_one(parts, fmt, true):
    qweight, scales, zeros, table, s0 = parts
    return true(qweight, scales, zeros + 1, table, s0, fmt)


def _swapped_groups(parts, fmt, true):
    qweight, scales, zeros, table, s0 = parts
    return true(qweight, scales.flip(1), zeros, table, s0, fmt)


def _fused_rounding(parts, fmt, true):
    qweight, scales, zeros, table, s0 = parts
    doubled = [t if t is None else t.double() for t in (scales, zeros, s0)]
    codes = unpack_codes(qweight, fmt.bits, fmt.k).double()
    spread = [t.repeat_interleave(fmt.block_k, 1) for t in doubled[:2]]
    return ((codes - spread[1]) * spread[0] * doubled[2]).float()


@pytest.mark.parametrize("bug", [_zero_off_by_one, _swapped_groups, _fused_rounding])
def test_the_oracle_catches(bug, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    weight = QuantizedWeight.from_parts(
        torch.randint(0, 16, (4, 32), generator=generator),
        torch.randn(4, 2, generator=generator),
        torch.randn(4, 2, generator=generator),
        s0=0.37,
    )
    check_value_rule(weight)
    true = weight_format.dequantize_parts
    monkeypatch.setattr(
        "lowbit.formats.weights.dequantize_parts", lambda *args: bug(args[:5], args[5], true)
    )
    with pytest.raises(AssertionError):
        check_value_rule(weight)
