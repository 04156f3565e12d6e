"""Where the elements of a tensor lie, and tensors with memory of their own."""

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch._subclasses import FakeTensor

HUGE_PAGE = 2 << 20


def byte_range(tensor: torch.Tensor) -> tuple[int, int]:
    """(address of the first element, address behind the last one) of a tensor with memory."""
    start = tensor.data_ptr()
    if not tensor.numel():
        return start, start
    dimensions = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in dimensions)
    return start, start + (last + 1) * tensor.element_size()


def may_overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the byte ranges of two tensors meet; no range meets that of a meta or fake tensor.

    Interleaved views (the even and the odd columns of a matrix) count as overlapping.
    """
    if any(t.is_meta or isinstance(t, FakeTensor) or not t.numel() for t in (a, b)):
        return False
    (a_start, a_stop), (b_start, b_stop) = byte_range(a), byte_range(b)
    return a_start < b_stop and b_start < a_stop


def own_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it is contiguous and all of its memory, else a copy.

    A slice would take the memory around it into torch.save, and safetensors refuses it.
    """
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    if whole and tensor.is_contiguous():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def empty_on_huge_pages(like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """An uninitialised tensor of the dtype and device of `like`.

    On the CPU it is aligned to huge pages and asks for them, from 2 MiB on: a pass through packed
    codes reads each byte once, and with small pages waits for address translation. The pages come
    at the first touch, so the request must come before. The storage is as large as the tensor.
    Where the system has no such pages the memory is as any other.
    """
    size = math.prod(shape) * like.element_size()
    real = like.device.type == "cpu" and not isinstance(like, FakeTensor)
    if not real or size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(shape)
    # The address space in front of the first boundary is never touched, so it takes no memory.
    area = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -torch.frombuffer(area, dtype=torch.uint8, count=1).data_ptr() % HUGE_PAGE
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages
        area.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    memory = torch.frombuffer(area, dtype=torch.uint8, count=size, offset=start)
    return memory.view(like.dtype).view(shape)


def copy_on_huge_pages(tensor: torch.Tensor) -> torch.Tensor:
    """A dense copy on the same device; on the CPU it lies on huge pages."""
    return empty_on_huge_pages(tensor, tensor.shape).copy_(tensor)
