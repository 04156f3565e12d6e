"""The 16-entry element tables: what a 4-bit code stands for before scaling."""

import torch

# Quantiles of the standard normal, normalised to [-1, 1] (QLoRA, arXiv 2305.14314, appendix E).
_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def _sign_magnitude(magnitudes: tuple[float, ...]) -> tuple[float, ...]:
    return magnitudes + tuple(-m if m else 0.0 for m in magnitudes)


# ExMy: sign, x exponent bits, y mantissa bits, subnormals, neither infinity nor NaN
# (OCP Microscaling Formats v1.0 for E2M1; LLM-FP4, arXiv 2310.16836, for the other two).
_TABLES = {
    "nf4": _NF4,
    "e2m1": _sign_magnitude((0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
    "e3m0": _sign_magnitude((0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)),
    "e1m2": _sign_magnitude((0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)),
}

TABLE_NAMES = tuple(_TABLES)


def element_table(name: str, device: torch.device | None = None) -> torch.Tensor:
    """The values float32[16] of the named element, indexed by code."""
    return torch.tensor(_TABLES[name], dtype=torch.float32, device=device)


def nearest_codes(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The code uint8 of the table entry nearest to each value; a tie goes to the even code.

    Where two codes stand for the same number (plus and minus zero) the lower code is taken.
    """
    levels, first = _distinct_levels(table)
    middles = (levels[1:].double() + levels[:-1].double()).mul(0.5).float()
    below = torch.bucketize(values, middles, right=False)
    above = torch.bucketize(values, middles, right=True)
    low, high = first[below], first[above]
    return torch.where(low % 2 == 0, low, high).to(torch.uint8)


def _distinct_levels(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    levels, order = torch.sort(table, stable=True)
    keep = torch.ones_like(levels, dtype=torch.bool)
    keep[1:] = levels[1:] != levels[:-1]
    return levels[keep].contiguous(), order[keep]
