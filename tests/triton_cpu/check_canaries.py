"""Accesses out of bounds are found on either side; run by tests/test_triton.py."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from tests.triton_cpu.canaries import BAND, OutOfBounds

pytestmark = pytest.mark.usefixtures("interpreted")


@triton.jit
def copy_kernel(source, target, n, skip_source, skip_target, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)
    numbers = tl.load(source + index + skip_source, index < n)
    tl.store(target + index + skip_target, numbers, index < n)


@triton.jit
def add_kernel(target, skip, SIZE: tl.constexpr):
    tl.atomic_add(target + tl.arange(0, SIZE) + skip, 1)


@triton.jit
def copy_column_kernel(source, target, stride, skip, SIZE: tl.constexpr):
    row = tl.arange(0, SIZE)
    tl.store(target + row, tl.load(source + row * stride + skip))


def test_within_bounds():
    source, target = torch.arange(8.0), torch.zeros(8)
    copy_kernel[(1,)](source, target, 7, 0, 0, SIZE=16)
    assert target.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2, torch.int64])
@pytest.mark.parametrize(
    ("n", "skip_source", "skip_target", "where"),
    [
        (9, 0, 0, "load of {} bytes, 1 out of bounds, first 0 bytes behind source"),
        (8, -1, 0, "load of {} bytes, 1 out of bounds, first {} bytes before source"),
        (8, 0, 2, "store of {} bytes, 2 out of bounds, first 0 bytes behind target"),
        (8, 0, -1, "store of {} bytes, 1 out of bounds, first {} bytes before target"),
        (8, 10**6, 0, "load of {} bytes, 8 out of bounds, first .* behind target"),
    ],
)
def test_an_overrun_is_found(n, skip_source, skip_target, where, dtype):
    source, target = torch.ones(8).to(dtype), torch.zeros(8).to(dtype)
    size = dtype.itemsize
    with pytest.raises(InterpreterError, match=where.format(size, size)) as caught:
        copy_kernel[(1,)](source, target, n, skip_source, skip_target, SIZE=16)
    assert isinstance(caught.value.__cause__, OutOfBounds)
    assert not target.float().any()  # nothing is copied back


def test_gaps_of_a_view_are_out_of_bounds():
    whole, target = torch.arange(40.0).view(8, 5), torch.zeros(8)
    view = whole[:, :3]
    copy_column_kernel[(1,)](view, target, 5, 2, SIZE=8)
    assert torch.equal(target, whole[:, 2])
    with pytest.raises(InterpreterError, match="7 out of bounds|8 out of bounds"):
        copy_column_kernel[(1,)](view, target, 5, 3, SIZE=8)


@pytest.mark.parametrize(("skip", "side"), [(1, "behind"), (-1, "before")])
def test_atomics_are_found_in_the_bands(skip, side):
    target = torch.zeros(8, dtype=torch.int32)
    add_kernel[(1,)](target, 0, SIZE=8)
    assert target.tolist() == [1] * 8
    with pytest.raises(OutOfBounds, match=f"written out of bounds, first . bytes {side} target"):
        add_kernel[(1,)](target, skip, SIZE=8)


def test_tensors_stand_apart():
    """An overrun of up to a band never ends in the next tensor."""
    source, target = torch.ones(16), torch.zeros(16)
    for distance in (1, BAND // 8, BAND // 4):
        for skip in (-distance, 15 + distance):
            with pytest.raises(InterpreterError, match="1 out of bounds"):
                copy_kernel[(1,)](source, target, 1, skip, 0, SIZE=16)
