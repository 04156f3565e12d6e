"""The Triton kernels in the interpreter, bit for bit; run by tests/test_triton.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from lowbit import registry
from lowbit.bench.cases import BACKWARD, CASES, DEQUANTIZE, LINEAR, Case
from lowbit.bench.check import check
from lowbit.bench.weight_specs import WeightSpec, in_layout
from lowbit.ops.dense_chunks import dense_chunks, multiply_chunks
from lowbit.ops.dequantize_weight import OUT_DTYPES
from lowbit.ops.weight_only_linear import X_DTYPES
from lowbit.triton_kernels import tiles
from lowbit.triton_kernels.weight_only_linear import weight_only_linear
from tests.properties import draw_weight
from tests.triton_cpu.interpreter import values
from tests.weight_cases import assert_same_bits, random_weight

pytestmark = pytest.mark.usefixtures("interpreted")
# Every so many cases run by default, the others with -m slow.
STRIDE = {DEQUANTIZE: 8, LINEAR: 32, BACKWARD: 40}


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


def products_in_order(self, a, b, d, *precision):
    """A dot whose sums do not depend on the number of columns, as those of a tensor core."""
    total, a, b = d.data, values(a), values(b)
    for i in range(a.shape[1]):
        total = total + a[:, i : i + 1] * b[i : i + 1]
    return TensorHandle(total, d.dtype.scalar)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("k", "group"), [(300, 64), (100, 7)])
def test_rows_do_not_depend_on_their_number(k, group, dtype, interpreted, monkeypatch):
    """Bit for bit: with a program for each split of K, and with one for all of them."""
    case = Case(LINEAR, WeightSpec(n=3, k=k, block_k=group), (100,), dtype, bias="x")
    monkeypatch.setitem(tiles.TUNED, (90, 3, k, 4), 3)
    monkeypatch.setattr(InterpreterBuilder, "create_dot", products_in_order)
    x, *rest = case.make()
    kernel = getattr(torch.ops.lowbit, f"{LINEAR}__{interpreted}")
    want = torch.empty(100, 3, dtype=dtype)
    kernel(x, *rest, want)
    for first, last in ((0, 1), (5, 22), (99, 100)):
        got = torch.empty(last - first, 3, dtype=dtype)
        kernel(x[first:last], *rest, got)
        assert_same_bits(got, want[first:last])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["value", "code"])
def test_rounded_weights(kind, dtype):
    """Of unit vectors the products are the weight itself, rounded once where it may be."""
    weight = WeightSpec(n=5, k=40, bits=3, block_k=12, zeros=kind, zero_dtype=torch.float16).make(0)
    fmt, got = weight.format, torch.empty(40, 5, dtype=dtype)
    numbers = {"bits": 3, "block_n": 1, "block_k": 12, "zero_kind": fmt.zero_kind}
    none = [None] * 3
    weight_only_linear(
        torch.eye(40, dtype=dtype), *weight.tensors, *none, got,
        **numbers, operand=dtype, may_round=True,
    )  # fmt: skip
    assert_same_bits(got.T.contiguous(), weight.dequantize(dtype))


def test_gradient_in_chunks(interpreted):
    """Of rows that are whole blocks, or parts of a tall one."""
    for block, wanted in ((1, [8, 8, 8, 8, 1]), (3, [6, 6, 6, 6, 6, 3]), (40, [8, 8, 8, 8, 1])):
        weight = WeightSpec(n=33, k=40, block_n=block, zeros="code").make(0)
        with registry.use_backend(interpreted):
            chunks = list(dense_chunks(weight.tensors, weight.format, torch.float32, 8 * 40 * 4))
        assert [rows.stop - rows.start for rows, _ in chunks] == wanted
        assert_same_bits(torch.cat([w for _, w in chunks]), weight.dequantize())


@pytest.mark.parametrize("dtype", X_DTYPES, ids=str)
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 33)], ids=["", "bias"])
def test_dense_library(bias, dtype, interpreted):
    """Many rows: the weight is rounded and torch multiplies."""
    weight = WeightSpec(n=33, k=40, zeros="code", permuted=True).make(0)
    x, got = torch.randn(7, 40).to(dtype), torch.empty(7, 33, dtype=dtype)
    bias = None if bias is None else bias.to(dtype)
    with registry.use_backend(interpreted):
        multiply_chunks(x, weight.tensors, weight.permutation, bias, weight.format, got)
    want = torch.nn.functional.linear(x, weight.dequantize(dtype), bias)
    loose = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(got, want, **loose)


def test_no_rows(interpreted):
    weight = random_weight(4, 64, 4).slice_rows(2, 2)
    with registry.use_backend(interpreted):
        got = torch.ops.lowbit.dequantize_weight(*weight.tensors, weight.format, torch.float32)
    assert got.shape == (0, 64)


def test_linears_from_anywhere_are_checked():
    x, *rest = Case(LINEAR, WeightSpec(n=4, k=64)).make()
    kernel = torch.ops.lowbit.weight_only_linear__triton_model
    with pytest.raises(ValueError, match=r"weight_only_linear: out must have shape \[5, 4\], got"):
        kernel(x, *rest, torch.empty(5, 5))
    with pytest.raises(TypeError, match="weight_only_linear: out must be float32, got float16"):
        kernel(x, *rest, torch.empty(5, 4, dtype=torch.float16))
    panels = Case(LINEAR, WeightSpec(n=4, k=64, layout="panels")).make()
    with pytest.raises(ValueError, match="format must have the layout canonical, got panels"):
        kernel(*panels, torch.empty(5, 4))
    with pytest.raises(ValueError, match="numerics must be a mode among exact, bf16"):
        kernel(x, *rest[:-1], 3, torch.empty(5, 4))
    grad, *rest = Case(BACKWARD, WeightSpec(n=4, k=64)).make()
    with pytest.raises(ValueError, match=r"_backward: out must have shape \[5, 64\], got"):
        torch.ops.lowbit.weight_only_linear_backward__triton_model(grad, *rest, torch.empty(5, 4))


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
