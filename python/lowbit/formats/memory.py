"""Where the elements of a tensor lie, and tensors with memory of their own."""

import torch
from torch._subclasses import FakeTensor


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
