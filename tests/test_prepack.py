"""Weights in the layout panels: the bytes of docs/formats.md, the exact way back, memory."""

import copy
import dataclasses
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

import lowbit
from lowbit import QuantizedWeight, dequantize_weight, prepack, quantize_weight, unpack
from lowbit.bench.cases import CASES, Case
from lowbit.bench.check import check, declined
from lowbit.bench.weight_specs import WeightSpec
from lowbit.formats.memory import HUGE_PAGE
from lowbit.formats.packing import pack_codes, unpack_codes
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES
from tests.properties import draw_weight, given, st
from tests.runners import RUNNERS, running_on
from tests.weight_cases import assert_same_bits, random_weight

# Typed from docs/formats.md, not imported: kernels of every instruction set rely on the order.
PLANES = {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}
UNIT = {1: 32, 2: 16, 3: 32, 4: 8, 5: 32, 6: 16, 7: 32, 8: 4}
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def panel_bytes(codes: list[list[int]], bits: int, block_k: int) -> list[bytes]:
    """Every panel of the rows of codes, byte by byte in the order of the document."""
    rows = codes + [[0] * len(codes[0])] * (-len(codes) % 64) if codes else []
    return [
        b"".join(
            unit_bytes(panel, start, min(stop, start + UNIT[bits]), bits)
            for group in range(0, len(panel[0]), block_k)
            for stop in [min(group + block_k, len(panel[0]))]
            for start in range(group, stop, UNIT[bits])
        )
        for panel in (rows[i : i + 64] for i in range(0, len(rows), 64))
    ]


def unit_bytes(panel, start: int, stop: int, bits: int) -> bytes:
    unit = [row[start:stop] + [0] * (UNIT[bits] - (stop - start)) for row in panel]
    out, low = bytearray(), 0
    for width in PLANES[bits]:
        fields = 8 // width
        for vector in range(UNIT[bits] * width // 32):
            for j in range(4):
                for b in range(64):
                    row, column = unit[16 * j + b // 4], 4 * vector * fields + b % 4
                    plane = [code >> low & (1 << width) - 1 for code in row]
                    byte = sum(plane[column + 4 * f] << f * width for f in range(fields))
                    out.append(byte)
        low += width
    return bytes(out)


@st.composite
def weights(draw):
    """Weights whose rows are slices of wider ones and whose padding bits are random."""
    n, k, bits = draw(st.integers(0, 140)), draw(st.integers(1, 100)), draw(st.integers(1, 8))
    block_n = draw(st.sampled_from([1, 1, 3, max(1, n)]))
    block_k = draw(st.sampled_from([1, 5, 8, 16, 33, 64, k, k + 7]))
    return draw_weight(draw, n, k, bits, (block_n, block_k))


def codes_of(weight: QuantizedWeight) -> torch.Tensor:
    return unpack_codes(weight.qweight, weight.bits, weight.shape[1])


def raw(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The bytes of a tensor in its order, so that NaN equals itself."""
    return None if tensor is None else tensor.flatten().clone().view(torch.uint8)


def assert_same(one: QuantizedWeight, other: QuantizedWeight) -> None:
    assert one.format == other.format
    for a, b in zip(one.parts, other.parts, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and a.shape == b.shape)
        assert a is None or torch.equal(raw(a), raw(b))


def without_padding_bits(weight: QuantizedWeight) -> QuantizedWeight:
    return dataclasses.replace(weight, qweight=pack_codes(codes_of(weight), weight.bits))


@pytest.mark.parametrize("op", ["prepack_weight", "unpack_weight"])
def test_cases(op, runner):
    for case in CASES[op]:
        if not declined(op, runner, case.make()):
            check(op, runner, case)


@given(weights())
def test_bytes_are_those_of_the_document_on_every_runner(weight):
    want = panel_bytes(codes_of(weight).tolist(), weight.bits, weight.format.block_k)
    for runner in RUNNERS:
        with running_on(runner):
            packed = prepack(weight)
        assert [row.numpy().tobytes() for row in packed.qweight] == want, runner


@given(weights())
def test_unpack_is_the_exact_inverse_on_every_runner(weight):
    want = without_padding_bits(weight)
    for runner in RUNNERS:
        with running_on(runner):
            assert_same(unpack(prepack(weight)), want)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("n", "k"), [(1, 1), (64, 128), (65, 31), (200, 100), (63, 257)])
def test_round_trip(bits, n, k, runner):
    generator = torch.Generator().manual_seed(n * k + bits)
    codes = torch.randint(0, 1 << bits, (n, k), generator=generator, dtype=torch.uint8)
    for block_k in (1, 7, 32, 48, k):
        scales = torch.rand(n, -(-k // block_k), generator=generator)
        weight = QuantizedWeight.from_parts(codes, scales, block=(1, block_k), bits=bits)
        packed = prepack(weight)
        assert packed.layout == "panels" and packed.qweight.is_contiguous()
        assert_same(unpack(packed), weight)


def test_the_comparison_sees_one_wrong_code():
    weight = random_weight(70, 40, 3)
    packed = prepack(weight)
    packed.qweight[1, 5] ^= 4
    with pytest.raises(AssertionError):
        assert_same(unpack(packed), without_padding_bits(weight))


@pytest.mark.parametrize("dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zeros", ZERO_DTYPES)
def test_scales_and_zeros_of_rows_stand_by_panel_and_group(dtype, zeros):
    weight = random_weight(70, 40, 4, block=(1, 16), scales=dtype, zeros=zeros)
    packed = prepack(weight)
    for ours, theirs in ((packed.scales, weight.scales), (packed.zeros, weight.zeros)):
        assert ours.shape == (2, 3, 64) and ours.is_contiguous() and ours.dtype == theirs.dtype
        for panel in range(2):
            for group in range(3):
                column = theirs[64 * panel : 64 * panel + 64, group]
                size = len(column) * theirs.element_size()
                got = raw(ours[panel, group])
                assert torch.equal(got[:size], raw(column)) and not got[size:].any()


def test_what_has_no_rows_of_its_own_is_shared():
    weight = random_weight(70, 40, 4, block=(3, 16), table=True, s0="row")
    weight = dataclasses.replace(weight, permutation=torch.arange(40, dtype=torch.int32).flip(0))
    packed = prepack(weight)
    for name in ("scales", "zeros", "table", "s0", "permutation"):
        assert getattr(packed, name) is getattr(weight, name)
    assert_same_bits(unpack(packed).dequantize(), weight.dequantize())


def test_either_function_leaves_its_own_result_alone():
    weight = quantize_weight(torch.randn(70, 40))
    packed = prepack(weight)
    assert prepack(packed) is packed and unpack(weight) is weight


def test_slices_are_packed_as_copies_of_them_are():
    weight = quantize_weight(torch.randn(200, 256), bits=3, group_size=64)
    part = weight.slice_rows(3, 150).slice_columns(64, 256)
    dense = QuantizedWeight(*(t if t is None else t.clone() for t in part.tensors), part.format)
    assert part.qweight.stride(0) == part.qweight.shape[1]  # three bits: packed anew
    assert_same(prepack(part), prepack(dense))
    rows = quantize_weight(torch.randn(200, 256)).slice_rows(3, 150).slice_columns(128, 256)
    assert rows.qweight.stride(0) > rows.qweight.shape[1]
    assert_same(unpack(prepack(rows)), rows)


def test_results_do_not_depend_on_threads(native_runner, threads):
    weight = quantize_weight(torch.randn(1000, 1000), bits=5, group_size=48)
    results = []
    for count in (1, 2):
        threads(count)
        packed = prepack(weight)
        results.append((packed, unpack(packed)))
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_values_stay(bits, runner):
    weight = quantize_weight(torch.randn(130, 200), bits=bits, group_size=48)
    packed = prepack(weight)
    assert torch.equal(packed.dequantize(), weight.dequantize())
    assert torch.equal(dequantize_weight(packed), dequantize_weight(weight))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(dequantize_weight(packed, dtype), dequantize_weight(weight, dtype))


@pytest.mark.parametrize("block_n", [1, 3, 0])
@pytest.mark.parametrize("zeros", ["none", "value"])
def test_the_op_dequantizes_panels_by_the_reference(block_n, zeros):
    spec = WeightSpec(n=70, k=77, bits=3, block_n=block_n, zeros=zeros, layout="panels")
    check("dequantize_weight", "reference", Case("dequantize_weight", spec))


def test_sizes_and_words_of_a_packed_weight():
    weight = quantize_weight(torch.randn(70, 200), group_size=48)
    packed = prepack(weight)
    # 4 groups of 48 and one of 8 columns, all whole units of 8; 2 panels
    assert packed.qweight.shape == (2, 200 * 64 * 4 // 32)
    assert packed.nbytes == 2 * 64 * (100 + 5 * 2 + 5 * 1)
    assert packed.effective_bits == 8 * packed.nbytes / (70 * 200)
    assert packed.shape == (70, 200) and packed.device.type == "cpu"
    assert "panels" in repr(packed) and "canonical" in repr(weight)


# ---- slices, copies, files ----


@given(weights(), st.integers(0, 3), st.integers(0, 3))
def test_row_slices_on_panels_are_views(weight, first, count):
    packed, n, block_n = prepack(weight), weight.format.n, weight.format.block_n
    start = min(first * 64, n)
    stop = min(start + count * 64, n)
    if start % block_n and start // block_n != (stop - 1) // block_n and start < stop:
        return
    part = packed.slice_rows(start, stop)
    QuantizedWeight(*part.tensors, part.format)  # fits its format
    assert_same_bits(part.dequantize(), weight.dequantize()[start:stop])
    if start < stop:
        storages = [w.qweight.untyped_storage().data_ptr() for w in (part, packed)]
        assert storages[0] == storages[1]


@pytest.mark.parametrize("range_", [(1, 64), (0, 65), (64, 129), (5, 5)])
def test_row_slices_elsewhere_are_refused(range_):
    packed = prepack(quantize_weight(torch.randn(130, 64)))
    text = f"slice_rows: (start, stop) must lie on boundaries of the 64-row panels, got {range_}"
    with pytest.raises(ValueError, match=re.escape(f"{text}; slice unpack(weight)")):
        packed.slice_rows(*range_)


def through_torch_save(weight):
    file = io.BytesIO()
    torch.save(weight, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


STORED = [
    lambda weight: pickle.loads(pickle.dumps(weight)),
    through_torch_save,
    lambda weight: QuantizedWeight.from_tensors(weight.to_tensors("a."), "a."),
]
COPIED = [
    copy.copy,
    copy.deepcopy,
    lambda weight: weight.to("cpu"),
    lambda weight: pytree.tree_map_only(torch.Tensor, torch.clone, weight),
]


@pytest.mark.parametrize("way", STORED)
@pytest.mark.parametrize("block_n", [1, 3])
def test_files_hold_the_canonical_layout(way, block_n):
    weight = without_padding_bits(random_weight(70, 40, 3, block=(block_n, 16)))
    assert_same(way(prepack(weight)), weight)


@pytest.mark.parametrize("way", COPIED)
def test_copies_stay_in_panels(way):
    packed = prepack(random_weight(70, 40, 3, scales=torch.float8_e8m0fnu))
    assert_same(way(packed), packed)


def test_files_in_panels_are_refused():
    packed = prepack(quantize_weight(torch.randn(8, 32)))
    tensors = {**packed.to_tensors(), "format": torch.tensor(packed.format)}
    need = "format must have the layout canonical, got panels; store unpack(weight)"
    with pytest.raises(ValueError, match=re.escape(f"QuantizedWeight.from_tensors: {need}")):
        QuantizedWeight.from_tensors(tensors)
    rebuild, args = packed.__reduce__()
    with pytest.raises(ValueError, match=re.escape(need)):
        rebuild(*args[:-1], tuple(packed.format))


# ---- refusals, tensors without data ----

Q = quantize_weight(torch.randn(130, 96), group_size=32)
P = prepack(Q)


def rebuilt(**changes):
    return dataclasses.replace(P, **changes)


REFUSED = {
    "prepack_weight: qweight must be a QuantizedWeight, got Tensor; make one with": (
        lambda: prepack(torch.ones(2, 2))
    ),
    "unpack_weight: qweight must be a QuantizedWeight, got NoneType; make one with": (
        lambda: unpack(None)
    ),
    "QuantizedWeight: qweight must have shape [3, 768], got [130, 12]": (
        lambda: rebuilt(qweight=Q.qweight)
    ),
    "QuantizedWeight: qweight must be contiguous, got strides [1, 3]": (
        lambda: rebuilt(qweight=P.qweight.t().contiguous().t())
    ),
    "QuantizedWeight: scales must have shape [3, 3, 64], got [130, 3]": (
        lambda: rebuilt(scales=Q.scales)
    ),
    "QuantizedWeight: scales must be contiguous, got strides [192, 1, 3]": (
        lambda: rebuilt(scales=P.scales.transpose(1, 2).contiguous().transpose(1, 2))
    ),
    "QuantizedWeight: zeros must have shape [3, 3, 64], got [3, 3, 63]": (
        lambda: rebuilt(zeros=P.zeros[..., :63])
    ),
    "QuantizedWeight: format must have layout in 0..2, got 3": (
        lambda: rebuilt(format=P.format._replace(layout=3))
    ),
    "slice_columns: format must have the layout canonical, got panels; slice unpack(weight)": (
        lambda: P.slice_columns(0, 32)
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text):
    with pytest.raises((ValueError, TypeError)) as refusal:
        REFUSED[text]()
    assert str(refusal.value).startswith(text)


def test_tensors_without_data():
    meta = prepack(Q.to("meta"), "panels")
    assert meta.format == P.format and meta.device.type == "meta"
    assert [t.shape for t in meta.tensors if t is not None] == [
        t.shape for t in P.tensors if t is not None
    ]
    assert unpack(meta).format == Q.format
    with FakeTensorMode() as mode:
        parts = [t if t is None else mode.from_tensor(t) for t in Q.tensors]
        fake = prepack(QuantizedWeight(*parts, Q.format))
    assert fake.qweight.shape == P.qweight.shape


def test_explain_names_the_kernel(runner):
    assert lowbit.explain("prepack_weight", Q).backend == runner
    assert lowbit.explain("unpack_weight", P).backend == runner


# ---- memory ----


def large_weight(bits: int = 4, n: int = 2048, k: int = 2080) -> QuantizedWeight:
    """Of more than a huge page, and not of whole ones."""
    codes = torch.zeros(n, k, dtype=torch.uint8)
    return QuantizedWeight.from_parts(codes, torch.ones(n, 1), bits=bits)


def mapping_flags(address: int) -> list[str]:
    """The flags of the memory mapping that holds the address (proc_pid_smaps(5))."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(mapping[1], 16) <= address < int(mapping[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("the address is not mapped")


@pytest.mark.skipif(not THP.exists(), reason="the system has no transparent huge pages")
@pytest.mark.parametrize("way", [prepack, lambda weight: copy.deepcopy(prepack(weight))])
def test_large_codes_lie_on_huge_pages(way, runner):
    codes = way(large_weight()).qweight
    size = codes.numel() * 4
    assert size > HUGE_PAGE and size % HUGE_PAGE
    assert codes.data_ptr() % HUGE_PAGE == 0
    assert codes.untyped_storage().nbytes() == size
    assert "hg" in mapping_flags(codes.data_ptr())
    last = codes.data_ptr() + size // HUGE_PAGE * HUGE_PAGE - 1
    assert "hg" in mapping_flags(last)


def test_small_codes_take_no_more_than_they_need():
    codes = prepack(quantize_weight(torch.randn(64, 64))).qweight
    assert codes.untyped_storage().nbytes() == codes.numel() * 4


PEAK = """
import sys, torch, lowbit
from lowbit.formats.weight_format import WeightFormat

def status(field):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024

def growth(convert, weight):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = status("VmRSS")
    result = convert(weight)
    print(status("VmHWM") - before, result.nbytes)
    return result

def make(n, k=8192, bits=2):
    fmt = WeightFormat(1, bits, n, k, 1, 128, 1)
    codes = torch.randint(-2**31, 2**31 - 1, (n, k * bits // 32), dtype=torch.int32)
    scales = torch.ones(n, k // 128, dtype=torch.float16)
    return lowbit.QuantizedWeight(codes, scales, None, None, None, fmt)

torch.set_num_threads(1)
with lowbit.use_backend(sys.argv[1]):
    lowbit.unpack(lowbit.prepack(make(64)))
    growth(lowbit.unpack, growth(lowbit.prepack, make(8192)))
"""


@pytest.mark.parametrize("backend", sorted({runner.partition("-")[0] for runner in RUNNERS}))
def test_peak_memory_is_the_two_weights_and_a_little(backend):
    """A fourth of the 64 MiB that the codes take as bytes would break the limit."""
    done = subprocess.run([sys.executable, "-c", PEAK, backend], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        grown, made = map(int, line.split())
        assert made > 16 << 20
        assert made * 0.9 < grown < made + (16 << 20)
    assert len(done.stdout.splitlines()) == 2
