"""Each seeded mistake is found by wrong values or by the guards; run by tests/test_triton.py."""

import dataclasses
import math
from unittest import mock

import pytest
import torch
from triton.runtime.errors import InterpreterError

from lowbit.bench.cases import DEQUANTIZE, LINEAR, Case
from lowbit.bench.check import compare, expected_of
from lowbit.bench.weight_specs import WeightSpec
from lowbit.triton_kernels import tiles
from tests.triton_cpu.canaries import OutOfBounds
from tests.triton_cpu.mistakes import MISTAKES, mistaken
from tests.weight_cases import assert_same_bits, random_weight

pytestmark = pytest.mark.usefixtures("interpreted")
E4M3, E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


def weights():
    """Few, with every part of the kernel in one of them."""
    first = random_weight(5, 530, 7, block=(1, 48), s0="row")
    yield dataclasses.replace(first, zeros=first.zeros.contiguous())  # of other strides than scales
    of_bytes = (
        random_weight(5, 530, 3, block=(2, 33), kind="value", scales=E4M3, zeros=torch.float16),
        random_weight(65, 30, 4, block=(1, 30), kind="midpoint", scales=E8M0),
        random_weight(5, 1100, 2, block=(1, 8), kind="none", table=True, scales=E8M0),
    )
    for weight in of_bytes:
        extremes = torch.tensor([0x7F, 0xFF, 0], dtype=torch.uint8)  # NaN, NaN, 0 or 2**-127
        weight.scales.view(torch.uint8)[:3, 0] = extremes
        yield weight


def run_dequantize(backend):
    kernel = getattr(torch.ops.lowbit, f"{DEQUANTIZE}__{backend}")
    for weight in weights():
        out = torch.full(weight.shape, math.nan)
        kernel(*weight.tensors, weight.format, torch.float32, out)
        assert_same_bits(out, weight.dequantize())


def _linear(rows, dtype, mode="exact", bias="none", low_rank="none", **spec):
    return Case(LINEAR, WeightSpec(**spec), rows, dtype, mode, bias, low_rank, view="padded")


# Tiles and parts of K in all numbers, every way to read codes and to multiply.
LINEARS = (
    _linear((2,), BF16, n=5, k=264, bits=4, block_k=128, zeros="code", cut="columns"),
    _linear((1,), BF16, "bf16", bias="float32", n=65, k=530, bits=2, block_k=128, table="random"),
    _linear((3,), BF16, low_rank="x", n=3, k=112, bits=7, block_k=48, zeros="code", cut="rows"),
    _linear(
        (2, 3), FP32, bias="strided", n=9, k=83, bits=3, block_k=33, block_n=2, zeros="value",
        zero_dtype=FP16, s0="rows", permuted=True,
    ),
    _linear((40,), FP16, bias="x", n=70, k=300, bits=4, block_k=64, zeros="midpoint"),
    _linear((17,), FP16, n=2, k=96, bits=8, block_k=32, zeros="code", s0="tensor"),
    _linear((1,), BF16, n=2, k=64, bits=8, block_k=32, zeros="code", zero_dtype=FP16),
    _linear((2,), FP32, n=5, k=40, bits=1, block_k=7, table="random", zeros="midpoint"),
)  # fmt: skip


# Of a program each, and of one for both.
SPLITS = {(90, 65, 530, 2): 3, (90, 70, 300, 4): 2}


def run_linear(backend):
    kernel = getattr(torch.ops.lowbit, f"{LINEAR}__{backend}")
    for case in LINEARS:
        args = list(case.make())
        args[3] = None if args[3] is None else args[3].contiguous()  # of other strides than scales
        out = torch.full((*case.rows, case.weight.n), math.nan, dtype=case.dtype)
        with mock.patch.dict(tiles.TUNED, SPLITS):
            kernel(*args, out)
        assert compare(out, expected_of(case, 0)).failure is None
    run_padding(kernel)
    run_unit_vectors()


def run_padding(kernel):
    """What the codes behind k select is infinite."""
    table = torch.tensor([1.0, math.inf, math.inf, math.inf])
    qweight, fmt = torch.tensor([[-1 << 10]], dtype=torch.int32), (1, 2, 1, 5, 1, 5, 0, 0)
    x, out = torch.arange(5.0).view(1, 5), torch.zeros(1, 1)
    kernel(x, qweight, torch.ones(1, 1), None, table, *[None] * 5, fmt, 0, out)
    assert out == 10


def run_unit_vectors():
    """Of them the products are the weights, here as they are: what 16 bits hide in y shows."""
    from lowbit.triton_kernels.weight_only_linear import weight_only_linear  # or a mistaken one

    weight = WeightSpec(n=2, k=64, bits=8, block_k=32, zeros="code", zero_dtype=FP16).make(0)
    numbers = {"bits": 8, "block_n": 1, "block_k": 32, "zero_kind": weight.format.zero_kind}
    got, none = torch.empty(64, 2), [None] * 3
    weight_only_linear(
        torch.eye(64, dtype=BF16), *weight.tensors, *none, got,
        **numbers, operand=BF16, may_round=False,
    )  # fmt: skip
    assert_same_bits(got.T.contiguous(), weight.dequantize())


RUNS = {DEQUANTIZE: run_dequantize, LINEAR: run_linear}


def run_all(op, backend):
    RUNS[op](backend)


def root_cause(error: BaseException) -> BaseException:
    return root_cause(error.__cause__) if error.__cause__ else error


@pytest.mark.parametrize("op", sorted({mistake.op for mistake in MISTAKES}))
def test_the_true_text_passes(op, interpreted):
    run_all(op, interpreted)


def by_default(mistake) -> bool:
    """Runs of linears take longer: one in four."""
    return mistake.op != LINEAR or MISTAKES.index(mistake) % 4 == 0


EVERY_MISTAKE = [
    pytest.param(mistake, marks=[] if by_default(mistake) else pytest.mark.slow, id=str(mistake))
    for mistake in MISTAKES
]


@pytest.mark.parametrize("mistake", EVERY_MISTAKE)
def test_a_mistake_is_found(mistake, interpreted, tmp_path):
    with (
        mistaken(mistake, tmp_path),
        pytest.raises((AssertionError, InterpreterError)) as found,
    ):
        run_all(mistake.op, interpreted)
    if found.type is InterpreterError:  # out of bounds, not a text that cannot run
        assert isinstance(root_cause(found.value), OutOfBounds)


def test_a_text_that_has_changed_is_told(tmp_path):
    gone = dataclasses.replace(MISTAKES[0], right="not in the text")
    with pytest.raises(AssertionError, match="found 0 times"):
        mistaken(gone, tmp_path)
