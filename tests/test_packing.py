"""pack_codes and unpack_codes against the bytes that docs/formats.md defines."""

import pytest
import torch

from lowbit.formats import packing
from lowbit.formats.packing import pack_codes, plane_words, unpack_codes
from tests.properties import given, st

# Typed from docs/formats.md, not imported: the table is what files on disk rely on.
PLANES = {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}


def bytes_of(row: list[int], bits: int) -> bytes:
    """One packed row, built plane by plane as a single big integer."""
    out, shift = b"", 0
    for width in PLANES[bits]:
        digits = ((code >> shift) % (1 << width) for code in row)
        number = sum(digit << (j * width) for j, digit in enumerate(digits))
        out += number.to_bytes(-(-len(row) * width // 32) * 4, "little")
        shift += width
    return out


def packed_bytes(qweight: torch.Tensor) -> list[bytes]:
    return [bytes(row.numpy().tobytes()) for row in qweight]


@st.composite
def code_matrices(draw):
    bits = draw(st.integers(1, 8))
    n, k = draw(st.integers(0, 5)), draw(st.integers(1, 140))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1 << bits, (n, k), generator=generator, dtype=torch.uint8), bits


def check_against_bytes(codes, bits):
    qweight = pack_codes(codes, bits)
    assert qweight.dtype == torch.int32
    assert qweight.shape == (len(codes), sum(plane_words(bits, codes.shape[1])))
    assert packed_bytes(qweight) == [bytes_of(row, bits) for row in codes.tolist()]


@given(code_matrices())
def test_pack_gives_the_documented_bytes(case):
    check_against_bytes(*case)


@given(code_matrices())
def test_unpack_inverts_pack(case):
    codes, bits = case
    assert torch.equal(unpack_codes(pack_codes(codes, bits), bits, codes.shape[1]), codes)


@given(code_matrices(), st.integers(1, 3))
def test_strided_inputs_are_read_by_their_strides(case, gap):
    codes, bits = case
    n, k = codes.shape
    wide = torch.full((n, k * (gap + 1)), 255, dtype=torch.uint8)
    wide[:, :: gap + 1] = codes
    qweight = pack_codes(wide[:, :: gap + 1], bits)
    assert torch.equal(qweight, pack_codes(codes, bits))
    padded = torch.full((n, qweight.shape[1] + gap), -1, dtype=torch.int32)
    padded[:, :-gap] = qweight
    assert torch.equal(unpack_codes(padded[:, :-gap], bits, k), codes)


@given(code_matrices())
def test_unpack_never_reads_padding(case):
    codes, bits = case
    k = codes.shape[1]
    noise = torch.full((len(codes), -(-k // 32) * 32), (1 << bits) - 1, dtype=torch.uint8)
    noise[:, :k] = codes
    dirty, start, start_clean = [], 0, 0
    full, clean = pack_codes(noise, bits), pack_codes(codes, bits)
    for width, words in zip(PLANES[bits], plane_words(bits, k), strict=True):
        dirty.append(full[:, start : start + words])
        start += -(-noise.shape[1] * width // 32)
        start_clean += words
    dirty = torch.cat(dirty, 1)
    assert start_clean == clean.shape[1]
    assert torch.equal(unpack_codes(dirty, bits, k), codes)


def test_bytes_of_four_bits_k40():
    row = [1, 2, 3, 4, 5, 6, 7, 8] + [0] * 8 + [15] * 8 + [9, 10] * 8
    expected = bytes.fromhex("21436587 00000000 ffffffff a9a9a9a9 a9a9a9a9".replace(" ", ""))
    qweight = pack_codes(torch.tensor([row], dtype=torch.uint8), 4)
    assert packed_bytes(qweight) == [expected]
    assert qweight[0, 0].item() & 0xFFFFFFFF == 0x87654321


def test_bytes_of_three_bits_k40():
    row = [0, 1, 2, 3, 4, 5, 6, 7] * 4 + [7, 7, 7, 7, 4, 4, 1, 1]
    low = "e4e4 e4e4 e4e4 e4e4 ff50 0000"  # two bits a code, 80 bits, three words
    high = "f0f0f0f0 3f000000"  # one bit a code, 40 bits, two words
    expected = bytes.fromhex((low + high).replace(" ", ""))
    assert packed_bytes(pack_codes(torch.tensor([row], dtype=torch.uint8), 3)) == [expected]


def test_plane_widths_are_those_of_the_document():
    assert {bits: list(widths) for bits, widths in packing.PLANE_WIDTHS.items()} == PLANES


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_rows(bits):
    codes = torch.empty(0, 40, dtype=torch.uint8)
    qweight = pack_codes(codes, bits)
    assert qweight.shape == (0, sum(plane_words(bits, 40)))
    assert unpack_codes(qweight, bits, 40).shape == (0, 40)


@pytest.mark.parametrize(
    ("codes", "got"),
    [
        (torch.zeros(2, 3), "torch.float32 with 2 dimensions"),
        (torch.zeros(2, 3, dtype=torch.int32), "torch.int32 with 2 dimensions"),
        (torch.zeros(3, dtype=torch.uint8), "torch.uint8 with 1 dimensions"),
    ],
)
def test_refuses_what_is_not_a_code_matrix(codes, got):
    with pytest.raises(ValueError) as refusal:
        pack_codes(codes, 4)
    assert str(refusal.value) == f"pack_codes: codes must be a 2-D uint8 tensor, got {got}"


def test_swapped_planes_are_caught(monkeypatch):
    """The byte check is one that can fail: with the high plane first it does."""
    monkeypatch.setitem(packing.PLANE_WIDTHS, 3, (1, 2))
    codes = torch.arange(40, dtype=torch.uint8).reshape(1, 40) % 8
    assert torch.equal(unpack_codes(pack_codes(codes, 3), 3, 40), codes)  # a round trip is blind
    with pytest.raises(AssertionError):
        check_against_bytes(codes, 3)
