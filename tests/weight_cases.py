"""Random weights of every kind, and the comparison of values bit for bit."""

import torch

from lowbit.formats.packing import plane_words
from lowbit.formats.weight_format import ZERO_KINDS, WeightFormat
from lowbit.formats.weights import QuantizedWeight

INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32}


def random_numbers(shape, dtype, generator) -> torch.Tensor:
    """Any stored values: all bit patterns of the small types, special values of the others."""
    if dtype.itemsize == 1:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).view(dtype)
    values = torch.randn(shape, generator=generator)
    special = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-40, 6e-8, 3e38, -65504.0])
    picked = special[torch.randint(0, len(special), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.2, picked, values).to(dtype)


def random_weight(
    n, k, bits, *, block=(1, 32), kind="code", scales=torch.float16, zeros=torch.uint8,
    table=False, s0=None, seed=0,
) -> QuantizedWeight:  # fmt: skip
    """A weight of random words, whose rows are slices of wider ones and padding bits are random."""
    generator = torch.Generator().manual_seed(seed)
    fmt = WeightFormat(1, bits, n, k, *block, ZERO_KINDS.index(kind))
    words = sum(plane_words(bits, k))
    rows, columns = fmt.scale_shape
    low, high = -(2**31), 2**31
    qweight = torch.randint(low, high, (n, words + 3), generator=generator).int()[:, 1 : words + 1]
    stored = [
        random_numbers((rows, columns + 2), dtype, generator)[:, 1 : columns + 1]
        for dtype in (scales, zeros)
    ]
    return QuantizedWeight(
        qweight,
        stored[0],
        stored[1] if kind in ("code", "value") else None,
        torch.randn(1 << bits, generator=generator) if table else None,
        {None: None, "tensor": torch.tensor(1.7), "row": torch.rand(n, generator=generator)}[s0],
        fmt,
    )


def assert_same_bits(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal bit for bit; NaN equals NaN, whatever its payload."""
    integer = INTEGER_OF_SIZE[want.element_size()]
    different = got.view(integer) != want.view(integer)
    different &= ~(got.isnan() & want.isnan())
    at = different.nonzero()
    assert not len(at), f"{len(at)} differ, first at {at[0].tolist()}: {got[tuple(at[0])]}"
