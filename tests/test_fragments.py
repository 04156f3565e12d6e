"""Weights in the layout fragments: every bit of docs/formats.md, the way back, who reads them."""

import copy
import dataclasses
import io
import itertools
import pickle
import re

import pytest
import torch

import lowbit
from lowbit import QuantizedWeight, prepack, quantize_weight, unpack, use_backend
from lowbit.bench.cases import CASES
from lowbit.formats import fragments, weight_format
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES, ZERO_KINDS
from lowbit.nn import QuantLinear, weight_module
from tests.properties import given, st
from tests.runners import CPU_LIBRARY_MISSING
from tests.test_prepack import PLANES, assert_same, codes_of, raw, weights, without_padding_bits
from tests.weight_cases import assert_same_bits, random_weight

needs_cpu_library = pytest.mark.skipif(
    CPU_LIBRARY_MISSING is not None, reason=str(CPU_LIBRARY_MISSING)
)


def panel_words(codes: list[list[int]], bits: int, block_k: int) -> list[list[int]]:
    """Every panel of the rows of codes, word by word in the order of the document."""
    rows = codes + [[0] * len(codes[0])] * (-len(codes) % 64) if codes else []
    panels = [rows[i : i + 64] for i in range(0, len(rows), 64)]
    return [
        [
            word
            for group in range(0, len(panel[0]), block_k)
            for stop in [min(group + block_k, len(panel[0]))]
            for start in range(group, stop, 32)
            for word in unit_words(panel, start, min(stop, start + 32), bits)
        ]
        for panel in panels
    ]


def unit_words(panel, start: int, stop: int, bits: int) -> list[int]:
    unit = [row[start:stop] + [0] * (32 - (stop - start)) for row in panel]
    words = []
    for half in range(2):
        low = 0
        for width in PLANES[bits]:
            for lane in range(32):
                words += lane_words(unit, half, lane, low, width)
            low += width
    return words


def lane_words(unit, half: int, lane: int, low: int, width: int) -> list[int]:
    g, c = divmod(lane, 4)
    words = [0] * width
    for s, t, i, e in itertools.product(range(2), range(2), range(4), range(2)):
        q = (s * 2 + t) * 4 + i
        code = unit[32 * half + 4 * g + 2 * t + (i & 1)][16 * s + 8 * (i >> 1) + 2 * c + e]
        place = q % (16 // width) * width + 16 * e
        words[q // (16 // width)] |= (code >> low & (1 << width) - 1) << place
    return words


def unsigned(packed: torch.Tensor) -> list[list[int]]:
    return [[word & 0xFFFFFFFF for word in row] for row in packed.tolist()]


def assert_bits_are_those_of_the_document(weight: QuantizedWeight) -> None:
    fmt = weight.format
    want = panel_words(codes_of(weight).tolist(), fmt.bits, fmt.block_k)
    assert unsigned(prepack(weight, "fragments").qweight) == want


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("n", "k", "group"), [(70, 50, 20), (64, 64, 64), (3, 33, 33), (1, 5, 1)])
def test_every_bit_is_where_the_document_says(bits, n, k, group):
    assert_bits_are_those_of_the_document(random_weight(n, k, bits, block=(1, group)))


@given(weights())
def test_bits_of_any_weight(weight):
    assert_bits_are_those_of_the_document(weight)


def test_a_wrong_order_is_caught(monkeypatch):
    """The comparison is one that can fail: with the two rows of t swapped it does."""

    def places(byte, field, width):
        row, column = fragments.FRAGMENT_ORDER.places(byte, field, width)
        return row ^ 2, column

    wrong = fragments.FRAGMENT_ORDER._replace(places=places)
    monkeypatch.setattr("lowbit.formats.layouts.ORDERS", (*weight_format.ORDERS[:2], wrong))
    weight = random_weight(64, 32, 4)
    assert_same(unpack(prepack(weight, "fragments")), without_padding_bits(weight))  # blind
    with pytest.raises(AssertionError):
        assert_bits_are_those_of_the_document(weight)


def test_the_words_of_the_document():
    """The example of docs/formats.md: K = 32, four bits, codes that tell their row and column."""
    codes = torch.zeros(64, 32, dtype=torch.uint8)
    codes[0, :2] = torch.tensor([1, 2])
    codes[1, :2] = torch.tensor([3, 4])
    codes[0, 8:10] = torch.tensor([5, 6])
    codes[1, 8:10] = torch.tensor([7, 8])
    codes[2, 0], codes[0, 16], codes[0, 2], codes[4, 0], codes[32, 0] = 9, 10, 11, 12, 13
    weight = QuantizedWeight.from_parts(codes, torch.ones(64, 1), bits=4)
    (words,) = unsigned(prepack(weight, "fragments").qweight)
    found = {place: hex(word) for place, word in enumerate(words) if word}
    assert found == {
        0: "0x86427531", 1: "0x9", 2: "0xa", 4: "0xb", 16: "0xc", 128: "0xd",
    }  # fmt: skip


# ---- the way back ----


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("n", "k"), [(0, 40), (1, 1), (64, 128), (65, 31), (200, 100), (63, 257)])
def test_round_trip(bits, n, k):
    for block_k in (1, 8, 20, 32, 48, 64, 128, k):
        weight = without_padding_bits(random_weight(n, k, bits, block=(1, block_k)))
        packed = prepack(weight, "fragments")
        assert packed.layout == "fragments" and packed.qweight.is_contiguous()
        units = sum(-(-min(block_k, k - start) // 32) for start in range(0, k, block_k))
        assert packed.qweight.shape == (-(-n // 64), units * 64 * bits)
        assert_same(unpack(packed), weight)


@given(weights())
def test_layouts_turn_into_each_other(weight):
    fragments, panels = prepack(weight, "fragments"), prepack(weight, "panels")
    assert_same(prepack(panels, "fragments"), fragments)
    assert_same(prepack(fragments, "panels"), panels)
    assert_same(prepack(fragments, "canonical"), without_padding_bits(weight))
    assert prepack(fragments, "fragments") is fragments


@pytest.mark.parametrize("dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zeros", ZERO_DTYPES)
def test_scales_and_zeros_lie_as_in_panels(dtype, zeros):
    weight = random_weight(70, 40, 4, block=(1, 16), scales=dtype, zeros=zeros)
    fragments, panels = prepack(weight, "fragments"), prepack(weight, "panels")
    for name in ("scales", "zeros"):
        assert torch.equal(raw(getattr(fragments, name)), raw(getattr(panels, name)))
        assert getattr(fragments, name).shape == (2, 3, 64)


def test_sizes_count_the_padding():
    packed = prepack(quantize_weight(torch.randn(70, 200), group_size=48), "fragments")
    # 4 groups of 48 columns in two units each, one of 8 in one; 2 panels
    assert packed.qweight.shape == (2, 9 * 64 * 4)
    assert packed.effective_bits == 8 * packed.nbytes / (70 * 200)
    assert packed.nbytes == 2 * (9 * 64 * 16 + 64 * 5 * 3)


@given(weights(), st.integers(0, 3), st.integers(0, 3))
def test_row_slices_on_panels_are_views(weight, first, count):
    packed, n, block_n = prepack(weight, "fragments"), weight.format.n, weight.format.block_n
    start = min(first * 64, n)
    stop = min(start + count * 64, n)
    if start % block_n and start // block_n != (stop - 1) // block_n and start < stop:
        return
    part = packed.slice_rows(start, stop)
    QuantizedWeight(*part.tensors, part.format)  # fits its format
    assert_same_bits(part.dequantize(), weight.dequantize()[start:stop])


# ---- files ----


def through_torch_save(weight):
    file = io.BytesIO()
    torch.save(weight, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "way",
    [
        lambda weight: pickle.loads(pickle.dumps(weight)),
        through_torch_save,
        lambda weight: QuantizedWeight.from_tensors(weight.to_tensors()),
    ],
)
def test_files_hold_the_canonical_layout(way):
    weight = without_padding_bits(random_weight(70, 40, 3, block=(1, 16)))
    assert_same(way(prepack(weight, "fragments")), weight)


def test_modules_hold_fragments_where_kernels_read_them(monkeypatch):
    monkeypatch.setattr(weight_module, "fastest_layout", lambda device, weight: "fragments")
    weight = quantize_weight(torch.randn(70, 75), group_size=32)
    module = QuantLinear(weight)
    assert module.weight.layout == "fragments"
    state = module.state_dict()
    assert torch.equal(state["qweight"], weight.qweight)
    for assign in (False, True):
        other = QuantLinear.empty(75, 70, bias=False, group_size=32)
        other.load_state_dict(copy.deepcopy(state), assign=assign)
        assert_same(other.weight, module.weight)
    assert_same(copy.deepcopy(module).weight, module.weight)
    assert_same(pickle.loads(pickle.dumps(module)).weight, module.weight)


# ---- who reads them ----


@pytest.mark.parametrize("kind", ZERO_KINDS)
@pytest.mark.parametrize("block_n", [1, 3])
def test_the_reference_computes_as_on_the_canonical_weight(kind, block_n):
    weight = random_weight(70, 77, 3, block=(block_n, 20), kind=kind, table=True, s0="row")
    packed = prepack(weight, "fragments")
    assert_same_bits(packed.dequantize(), weight.dequantize())
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.randn(5, 77).to(dtype)
        for mode in ("exact", "bf16", "fp16", "int8x2", "dense"):
            with use_backend("reference"):
                want = lowbit.weight_only_linear(x, weight, mode=mode)
                got = lowbit.weight_only_linear(x, packed, mode=mode)
            assert_same_bits(got, want)


def test_packing_and_unpacking_miss_no_faster_kernel(monkeypatch):
    monkeypatch.setenv("LOWBIT_STRICT", "1")
    weight = quantize_weight(torch.randn(70, 77))
    packed = prepack(weight, "fragments")
    assert_same(unpack(packed), weight)
    for choice in (
        lowbit.explain("prepack_weight", weight, "fragments"),
        lowbit.explain("unpack_weight", packed),
    ):
        assert choice.backend == "reference" and choice.slower_because is None
        assert "cpu" in choice.passed_over


@needs_cpu_library
def test_a_linear_on_the_cpu_misses_its_kernel(monkeypatch):
    monkeypatch.setenv("LOWBIT_STRICT", "1")
    packed = prepack(quantize_weight(torch.randn(70, 77)), "fragments")
    with pytest.raises(RuntimeError, match="layout fragments is not among canonical, panels"):
        lowbit.weight_only_linear(torch.randn(2, 77), packed)


def _calls(packed: QuantizedWeight, canonical: QuantizedWeight):
    fmt = list(packed.format)
    x, grad, out = torch.ones(2, 77), torch.ones(2, 70), torch.zeros(2, 70)
    either = "format must have the layout canonical or panels, got fragments"
    yield "weight_only_linear", (x, *packed.parts, None, None, None, fmt, 0, out), either
    grad_x = torch.zeros(2, 77)
    yield "weight_only_linear_backward", (grad, *packed.tensors, fmt, grad_x), either
    dense = torch.zeros(70, 77)
    text = "format must have the layout canonical, got fragments"
    yield "dequantize_weight", (*packed.tensors, fmt, torch.float32, dense), text
    words = torch.zeros_like(canonical.qweight)
    text = "format must have the layout panels, got fragments"
    yield "unpack_weight", (packed.qweight, fmt, words), text
    words = torch.zeros_like(packed.qweight)
    args = canonical.qweight, list(canonical.format), 2, words
    yield "prepack_weight", args, "layout must be panels, got fragments"


@needs_cpu_library
def test_cpu_kernels_refuse_them():
    canonical = quantize_weight(torch.randn(70, 77))
    for op, args, text in _calls(prepack(canonical, "fragments"), canonical):
        kernel = getattr(torch.ops.lowbit, f"{op}__cpu").default
        with pytest.raises(ValueError, match=re.escape(f"{op}: {text}")):
            kernel(*args)
        assert not args[-1].any()


PACKED = prepack(quantize_weight(torch.randn(130, 96), group_size=32), "fragments")
REFUSED = {
    "prepack_weight: layout must be None or one of canonical, panels, fragments, got 'tiles'": (
        lambda: prepack(PACKED, "tiles")
    ),
    "QuantizedWeight: qweight must be contiguous, got strides [1, 3]": (
        lambda: dataclasses.replace(PACKED, qweight=PACKED.qweight.t().contiguous().t())
    ),
    "QuantizedWeight: scales must have shape [3, 3, 64], got [130, 3]": (
        lambda: dataclasses.replace(PACKED, scales=unpack(PACKED).scales)
    ),
    "slice_columns: format must have the layout canonical, got fragments; slice unpack(weight)": (
        lambda: PACKED.slice_columns(0, 32)
    ),
    "slice_rows: (start, stop) must lie on boundaries of the 64-row panels, got (1, 64)": (
        lambda: PACKED.slice_rows(1, 64)
    ),
    "QuantizedWeight.from_tensors: format must have the layout canonical, got fragments; store": (
        lambda: QuantizedWeight.from_tensors(
            {**PACKED.to_tensors(), "format": torch.tensor(PACKED.format)}
        )
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text):
    with pytest.raises(ValueError) as refusal:
        REFUSED[text]()
    assert str(refusal.value).startswith(text)


def test_cases_of_both_packed_layouts_are_there():
    for op in ("prepack_weight", "unpack_weight"):
        layouts = [case.weight.layout for case in CASES[op]]
        assert layouts.count("fragments") == layouts.count("canonical") > 100
