"""Low-rank pairs A [r, K], B [N, r]: what a linear adds as (x @ A.T) @ B.T."""

from __future__ import annotations

import math

import torch

# Columns more than the rank, and passes, of the randomized range finder (Halko, Martinsson, Tropp,
# SIAM Review 53(2), 2011, algorithm 4.4). Errors of quantization have a flat spectrum, which needs
# more passes than usual.
_OVERSAMPLING = 16
_PASSES = 4


def best_pair(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(A [r, K], B [N, r]), float32, such that B @ A is close to the best of its rank for [N, K].

    r is the rank, or the smaller side of the matrix if that is less. Each of the r directions is
    shared evenly: its singular value goes by its root into A and into B. The same for each call.
    """
    rank = min(rank, *matrix.shape)
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], width, generator=generator).to(matrix.device)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_PASSES):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.t() @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], (basis @ left[:, :rank]) * root


def fresh_pair(n: int, k: int, rank: int, dtype, device) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair to train from, as LoRA starts: A is uniform as in nn.Linear, B is zero."""
    low_rank_a = torch.empty(rank, k, dtype=dtype, device=device)
    if rank:
        torch.nn.init.kaiming_uniform_(low_rank_a, a=math.sqrt(5))
    return low_rank_a, torch.zeros(n, rank, dtype=dtype, device=device)
