"""How the groups of a weight become codes: one rule for each kind of element.

A rule sees groups[n, G, g] in float32 and valid[G, g], the columns that count (a ragged last group
is padded with zeros), and gives the scale it wants; zero points, codes and values are computed with
the scale that is stored. scale and zeros are [n, G, 1] where codes are made.
"""

import torch

from lowbit.formats.tables import nearest_codes

_PIECE = 4096


class AffineRule:
    """Integer codes over the range [min(w, 0), max(w, 0)] with an integer zero point."""

    zero_kind = "code"

    def __init__(self, bits: int):
        self.top = float((1 << bits) - 1)

    def scale(self, groups: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        high, low = groups.amax(-1).clamp_min(0), groups.amin(-1).clamp_max(0)
        return high / self.top - low / self.top

    def zeros(self, groups, valid, scale: torch.Tensor, shrink: float) -> torch.Tensor:
        low = groups.amin(-1, keepdim=True).clamp_max(0) * shrink
        return torch.round(-low / scale).clamp_(0, self.top)

    def codes(self, groups, scale, zeros) -> torch.Tensor:
        return (torch.round(groups / scale) + zeros).clamp_(0, self.top)

    def values(self, codes, scale, zeros):
        return (codes - zeros) * scale

    def stored_zeros(self, zeros: torch.Tensor) -> torch.Tensor | None:
        return zeros.to(torch.uint8)


class MidpointRule(AffineRule):
    """Two's complement range -2**(bits-1) .. 2**(bits-1)-1, stored offset-binary."""

    zero_kind = "midpoint"

    def __init__(self, bits: int):
        super().__init__(bits)
        self.half = float(1 << (bits - 1))

    def scale(self, groups, valid):
        return torch.maximum(groups.amax(-1) / (self.half - 1), -groups.amin(-1) / self.half)

    def zeros(self, groups, valid, scale, shrink):
        return torch.full_like(scale, self.half)

    def stored_zeros(self, zeros):
        return None


class SignRule(AffineRule):
    """One bit: plus or minus the mean magnitude, as codes 0 and 1 around the zero point 1/2."""

    def scale(self, groups, valid):
        return 2.0 * sum_columns(groups.abs()) / valid.sum(-1)

    def zeros(self, groups, valid, scale, shrink):
        # Zeros have the code 1: around the zero point 1 a group of nothing else stays zero.
        return torch.where(groups.abs().amax(-1, keepdim=True) > 0, 0.5, 1.0)

    def codes(self, groups, scale, zeros):
        return (groups >= 0).float()

    def stored_zeros(self, zeros):
        return zeros.to(torch.float16)


class MeanSignRule(AffineRule):
    """One bit around the mean: mu + alpha*sign(w - mu), alpha the mean magnitude of w - mu.

    The binarization that PTQ1.61 uses for its low-bit columns, stored as w = s*c + v, s = 2*alpha.
    """

    zero_kind = "value"

    def _mean(self, groups, valid):
        return sum_columns(groups).unsqueeze(-1) / valid.sum(-1, keepdim=True)

    def scale(self, groups, valid):
        spread = (groups - self._mean(groups, valid)).abs().mul(valid)
        return 2.0 * sum_columns(spread) / valid.sum(-1)

    def zeros(self, groups, valid, scale, shrink):
        # A constant group has no spread, and the scale 1 that it gets must not stand for one.
        spread = torch.where(self.scale(groups, valid).unsqueeze(-1) > 0, scale, 0.0)
        return (self._mean(groups, valid) - 0.5 * spread).to(torch.float16).float()

    def codes(self, groups, scale, zeros):
        return (groups >= zeros + 0.5 * scale).float()

    def values(self, codes, scale, zeros):
        return codes * scale + zeros

    def stored_zeros(self, zeros):
        return zeros.to(torch.float16)


class TableRule:
    """Codes of a table, scaled by the group's largest magnitude."""

    zero_kind = "none"

    def __init__(self, table: torch.Tensor):
        self.table = table
        self.peak = table.abs().max().item()

    def scale(self, groups, valid):
        return groups.abs().amax(-1) / self.peak

    def zeros(self, groups, valid, scale, shrink):
        return torch.zeros_like(scale)

    def codes(self, groups, scale, zeros):
        return nearest_codes(groups / scale, self.table).float()

    def values(self, codes, scale, zeros):
        return self.table[codes.long()] * scale

    def stored_zeros(self, zeros):
        return None


def integer_rule(bits: int, symmetric: bool):
    if bits == 1:
        return SignRule(bits) if symmetric else MeanSignRule(bits)
    return MidpointRule(bits) if symmetric else AffineRule(bits)


def sum_columns(values: torch.Tensor) -> torch.Tensor:
    """values.sum(-1) in an order that does not depend on the number of threads.

    torch divides a sum among threads when it has a single result; pieces give it several.
    """
    width = values.shape[-1]
    if width <= _PIECE:
        return values.sum(-1)
    padded = torch.nn.functional.pad(values, (0, -width % _PIECE))
    return padded.unflatten(-1, (-1, _PIECE)).sum(-1).sum(-1)
