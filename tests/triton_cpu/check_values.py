"""The Triton kernels in the interpreter, bit for bit; run by tests/test_triton.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit import registry
from lowbit.bench.cases import BACKWARD, CASES, DEQUANTIZE, LINEAR
from lowbit.bench.check import check
from lowbit.bench.weight_specs import in_layout
from lowbit.ops.dequantize_weight import OUT_DTYPES
from tests.properties import draw_weight
from tests.weight_cases import assert_same_bits, random_weight

pytestmark = pytest.mark.usefixtures("interpreted")
# Every so many cases run by default, the others with -m slow.
STRIDE = {DEQUANTIZE: 8, LINEAR: 24, BACKWARD: 24}


def covered(case) -> bool:
    return case.weight.layout == "canonical" and case.mode != "int8x2"


EVERY_CASE = [
    pytest.param(op, case, marks=[] if number % stride == 0 else pytest.mark.slow)
    for op, stride in STRIDE.items()
    for number, case in enumerate(filter(covered, CASES[op]))
]


def test_every_op_has_cases():
    ops = {op.name for op in registry.OPS.values() if any(r.backend == "triton" for r in op.rows)}
    assert ops == STRIDE.keys()


@pytest.mark.parametrize(("op", "case"), EVERY_CASE, ids=str)
def test_case(op, case, interpreted):
    check(op, interpreted, case)


@st.composite
def weights(draw):
    """Every format, with rows and columns of a few tiles and all stored bit patterns."""
    bits = draw(st.integers(1, 8))
    k = draw(st.integers(1, 80) | st.integers(500, 1100))
    block_n = draw(st.integers(1, 4))
    block_k = draw(st.integers(1, k) | st.sampled_from([8, 32, 64]))
    return draw_weight(draw, draw(st.integers(1, 9)), k, bits, (block_n, block_k))


@settings(max_examples=25)
@given(weight=weights(), dtype=st.sampled_from(OUT_DTYPES))
def test_every_format(interpreted, weight, dtype):
    with registry.use_backend(interpreted):
        got = torch.ops.lowbit.dequantize_weight(*weight.tensors, weight.format, dtype)
    assert_same_bits(got, weight.dequantize(dtype))


def test_no_rows(interpreted):
    weight = random_weight(4, 64, 4).slice_rows(2, 2)
    with registry.use_backend(interpreted):
        got = torch.ops.lowbit.dequantize_weight(*weight.tensors, weight.format, torch.float32)
    assert got.shape == (0, 64)


def test_calls_from_anywhere_are_checked():
    """Directly called kernels refuse what would touch memory that is not theirs."""
    weight = random_weight(4, 64, 4)
    kernel = torch.ops.lowbit.dequantize_weight__triton_model
    given = [*weight.tensors, weight.format, torch.float32]
    for out, text in [
        (torch.empty(4, 63), r"out must have shape \[4, 64\], got \[4, 63\]"),
        (torch.empty(64, 4).T, r"out must be contiguous, got strides \[1, 4\]"),
    ]:
        with pytest.raises(ValueError, match=f"dequantize_weight: {text}"):
            kernel(*given, out)
    with pytest.raises(TypeError, match="dequantize_weight: out must be float32, got float16"):
        kernel(*given, torch.empty(4, 64, dtype=torch.float16))
    panels = in_layout(weight, "panels")
    with pytest.raises(ValueError, match="format must have the layout canonical, got panels"):
        kernel(*panels.tensors, panels.format, torch.float32, torch.empty(4, 64))
