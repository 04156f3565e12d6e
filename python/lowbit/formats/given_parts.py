"""Unpacked codes, scales, zeros and permutations as users give them, checked by their values."""

import torch
from torch._subclasses import FakeTensor

from lowbit.errors import dtype_name, refuse, require_tensor
from lowbit.formats.packing import PLANE_WIDTHS


def checked_codes(where: str, codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes [N, K] as uint8; refuses what is not below 2**bits."""
    if bits not in PLANE_WIDTHS:
        refuse(where, "bits", "be 1 to 8", bits)
    if codes.dim() != 2 or codes.is_floating_point() or codes.is_complex():
        got = f"{dtype_name(codes.dtype)} with {codes.dim()} dimensions"
        refuse(where, "codes", "be a 2-D integer tensor", got)
    if not codes.shape[1]:
        refuse(where, "codes", "have at least one column", list(codes.shape))
    if codes.numel() and not 0 <= codes.min().item() <= codes.max().item() < 1 << bits:
        got = f"{codes.min().item()} to {codes.max().item()}"
        refuse(where, "codes", f"lie in 0..{(1 << bits) - 1}", got)
    return codes.to(torch.uint8)


def scales_of_blocks(where, scales, n, k, block):
    """Scales as [row blocks, groups] and the block (rows, columns) of each."""
    if block is None:
        if scales.numel() == 1 and scales.dim() <= 1:
            return scales.reshape(1, 1)[:n], (max(1, n), k)
        scales = scales.reshape(-1, 1) if scales.dim() == 1 else scales
        if scales.dim() != 2 or scales.shape[0] != n or not scales.shape[1]:
            refuse(where, "scales", f"have shape [], [{n}] or [{n}, G]", list(scales.shape))
        if k % scales.shape[1]:
            remedy = "pass block=(rows, columns)"
            refuse(where, "scales", f"have a G that divides K={k}", scales.shape[1], remedy)
        return scales, (1, k // scales.shape[1])
    rows, columns = block
    if rows < 1 or columns < 1:
        refuse(where, "block", "be at least 1 by 1", list(block))
    shape = (-(-n // rows), -(-k // columns))
    if tuple(scales.shape) != shape:
        refuse(where, "scales", f"have shape {list(shape)}", list(scales.shape))
    return scales, (rows, columns)


def compact_integers(zeros: torch.Tensor) -> torch.Tensor:
    """Integer zeros as uint8 where they fit, else float32."""
    if zeros.is_floating_point() or zeros.dtype == torch.uint8:
        return zeros
    if zeros.numel() and not 0 <= zeros.min().item() <= zeros.max().item() <= 255:
        return zeros.float()
    return zeros.to(torch.uint8)


def compact_permutation(where: str, permutation: torch.Tensor, k: int) -> torch.Tensor:
    """A permutation [k] of any integer dtype as int32."""
    require_tensor(where, "permutation", permutation)
    if permutation.is_floating_point() or permutation.is_complex() or permutation.shape != (k,):
        got = f"{dtype_name(permutation.dtype)} {list(permutation.shape)}"
        refuse(where, "permutation", f"be integers of shape [{k}]", got)
    require_permutation(where, permutation, k)
    return permutation.to(torch.int32).contiguous()


def require_permutation(where: str, permutation: torch.Tensor, k: int) -> None:
    """ValueError unless it holds 0..k-1, each once. Reads the data; tensors without any pass."""
    if permutation.is_meta or isinstance(permutation, FakeTensor) or torch.compiler.is_compiling():
        return
    numbers = torch.arange(k, dtype=permutation.dtype, device=permutation.device)
    if not torch.equal(permutation.sort().values, numbers):
        got = f"{permutation.unique().numel()} different numbers"
        if k and permutation.numel():
            got += f" from {permutation.min().item()} to {permutation.max().item()}"
        refuse(where, "permutation", f"hold each of 0..{k - 1} once", got)
