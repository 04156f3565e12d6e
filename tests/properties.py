"""hypothesis for the tests that draw their cases. Without it those are skipped, and no others."""

import os

import pytest

from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES, ZERO_KINDS
from lowbit.formats.weights import QuantizedWeight
from tests.weight_cases import random_weight

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies

hypothesis.settings.register_profile(
    "local", deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def draw_weight(draw, n: int, k: int, bits: int, block: tuple[int, int]) -> QuantizedWeight:
    """Of any stored types, tables and scales of second order among them."""
    return random_weight(
        n,
        k,
        bits,
        block=block,
        kind=draw(st.sampled_from(ZERO_KINDS)),
        scales=draw(st.sampled_from(SCALE_DTYPES)),
        zeros=draw(st.sampled_from(ZERO_DTYPES)),
        table=bits <= 4 and draw(st.booleans()),
        s0=draw(st.sampled_from([None, "tensor", "row"])),
        seed=draw(st.integers(0, 2**16)),
    )
