"""Which tensors share memory, by the addresses of their elements."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

import lowbit
from lowbit.formats.memory import byte_range, may_overlap, own_memory


def test_byte_range_spans_first_to_last_element():
    base = torch.zeros(10, 8)
    start = base.data_ptr()
    assert byte_range(base) == (start, start + 320)
    assert byte_range(base[2:4, 1:3]) == (start + 68, start + 68 + 40)
    assert byte_range(base[:1].expand(5, 8)) == (start, start + 32)
    assert len(set(byte_range(base[3:3]))) == 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (slice(0, 4), slice(4, 8), False),
        (slice(0, 5), slice(4, 8), True),
        (slice(2, 2), slice(0, 8), False),
        (slice(0, 8, 2), slice(1, 8, 2), True),
    ],
)
def test_may_overlap(a, b, expected):
    base = torch.zeros(8, 3)
    assert may_overlap(base[a], base[b]) == may_overlap(base[b], base[a]) == expected


def test_own_memory_copies_slices_only():
    base = torch.arange(12.0).view(3, 4)
    assert own_memory(base) is base
    for part in (base[1:], base[:, :2], base.t()):
        copy = own_memory(part)
        assert torch.equal(copy, part) and copy.is_contiguous()
        assert copy.untyped_storage().nbytes() == 4 * part.numel()


def test_out_and_x_may_be_parts_of_one_workspace():
    weight = lowbit.quantize_weight(torch.randn(8, 64), group_size=32)
    workspace = torch.randn(3 * 64 + 3 * 8)
    x, out = workspace[:192].view(3, 64), workspace[192:].view(3, 8)
    expected = lowbit.weight_only_linear(x.clone(), weight)
    assert torch.equal(lowbit.weight_only_linear(x, weight, out=out), expected)
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        lowbit.weight_only_linear(x, weight, out=workspace[191:215].view(3, 8))


def test_out_on_tensors_without_memory():
    weight = lowbit.quantize_weight(torch.randn(8, 64), group_size=32)
    out = torch.empty(3, 8, device="meta")
    assert lowbit.weight_only_linear(out.new_empty(3, 64), weight.to("meta"), out=out) is out
    with FakeTensorMode() as mode:
        parts = [t if t is None else mode.from_tensor(t) for t in weight.tensors]
        fake = lowbit.QuantizedWeight(*parts, weight.format)
        out = torch.empty(3, 8)
        assert lowbit.weight_only_linear(torch.empty(3, 64), fake, out=out) is out
