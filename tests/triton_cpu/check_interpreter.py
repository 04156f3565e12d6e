"""The corrected interpreter computes as torch does; run by tests/test_triton.py.

Each feature is also probed without the corrections, and what the stock interpreter gets wrong is
recorded by version: a correction that becomes superfluous, or a fault that is new, shows.
"""

import contextlib
import ctypes
import math
import warnings

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.triton_cpu.interpreter import CORRECTIONS, corrections

SIZE = 1024
BF16, E4M3, E5M2 = torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2


@triton.jit
def cast_kernel(source, target, SIZE: tl.constexpr, ROUNDING: tl.constexpr):
    index = tl.arange(0, SIZE)
    numbers = tl.load(source + index)
    tl.store(target + index, numbers.to(target.dtype.element_ty, fp_downcast_rounding=ROUNDING))


@triton.jit
def arithmetic_kernel(source, other, target, SIZE: tl.constexpr, NAME: tl.constexpr):
    index = tl.arange(0, SIZE)
    a, b = tl.load(source + index), tl.load(other + index)
    if NAME == "multiply-add":
        c = a * b + a - b
    elif NAME == "compare":
        c = tl.where(a < b, a, b)
    elif NAME == "sign":
        c = tl.where(index % 2 == 0, -a, tl.abs(b))
    elif NAME == "minimum":
        c = tl.minimum(a, b)
    elif NAME == "maximum":
        c = tl.maximum(a, b)
    elif NAME == "clamp":
        c = tl.clamp(a, -tl.abs(b), tl.abs(b))
    elif NAME == "clamp but NaN":
        c = tl.clamp(a, -tl.abs(b), tl.abs(b), propagate_nan=tl.PropagateNan.ALL)
    elif NAME == "assembly":
        c = tl.inline_asm_elementwise(
            "mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, is_pure=True, pack=1
        )
    elif NAME == "fma":
        c = tl.fma(a, b, b)
    else:
        c = tl.full((SIZE,), 1.239, target.dtype.element_ty)
    tl.store(target + index, c)


@triton.jit
def reduce_kernel(source, target, SIZE: tl.constexpr, NAME: tl.constexpr):
    index = tl.arange(0, SIZE)
    numbers = tl.load(source + index)
    if NAME == "sum":
        tl.store(target + index, tl.sum(numbers, 0))
    elif NAME == "max":
        tl.store(target + index, tl.max(numbers, 0))
    else:
        tl.store(target + index, tl.cumsum(numbers, 0))


@triton.jit
def dot_kernel(source, other, target, SIZE: tl.constexpr):
    row, column = tl.arange(0, SIZE)[:, None] * SIZE, tl.arange(0, SIZE)[None, :]
    a, b = tl.load(source + row + column), tl.load(other + row + column)
    tl.store(target + row + column, tl.dot(a, b, out_dtype=tl.float32))


def numbers(dtype, seed=0):
    """Of many magnitudes, exact ties among them, with the special values."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SIZE, generator=generator) * torch.exp2(torch.arange(SIZE) % 40 - 20.0)
    x[::5] = x[::5].to(E5M2).float() * 1.125  # halfway between two numbers of two mantissa bits
    x[1::5] = x[1::5].bfloat16().float() * (1 + 2.0**-8)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 448, 464, 465, -1e30, 57344, 61440, 2**-10]
    x[: len(special)] = torch.tensor(special)
    return x.to(dtype)


def small_integers(shape, dtype, seed=0):
    """Their products and sums are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).to(dtype)


def saturated(x, dtype):
    """As cvt.rn.satfinite: what overflows, infinities among it, is the largest number."""
    largest = torch.finfo(dtype).max
    return x.float().clamp(-largest, largest).to(dtype)


# ---- probes: each returns (got, want) ----


def cast(source, dtype, rounding=None):
    def probe():
        x = numbers(source) if source.is_floating_point else small_integers((SIZE,), source) * 12345
        got = torch.zeros(SIZE, dtype=dtype)
        cast_kernel[(1,)](x, got, SIZE=SIZE, ROUNDING=rounding)
        if rounding == "rtz":
            return got, toward_zero(x, dtype)
        return got, saturated(x, dtype) if dtype.itemsize == 1 else x.float().to(dtype)

    return probe


def toward_zero(x, dtype):
    """Of candidates on both sides of the nearest number, the largest that is not beyond x."""
    near, bits = x.to(dtype), x.to(dtype).view(torch.int16)
    return torch.where(near.float().abs() > x.abs(), (bits - 1).view(dtype), near)


def arithmetic(name, dtype, want):
    def probe():
        a, b = numbers(dtype), numbers(dtype, 1).roll(3)
        got = torch.zeros(SIZE, dtype=dtype)
        arithmetic_kernel[(1,)](a, b, got, SIZE=SIZE, NAME=name)
        return got, want(a, b)

    return probe


def multiply_add(a, b):
    return a * b + a - b


def multiply_add_of_bytes(a, b):
    product = saturated(a.float() * b.float(), a.dtype)
    total = saturated(product.float() + a.float(), a.dtype)
    return saturated(total.float() - b.float(), a.dtype)


def alternate_sign(a, b):
    return torch.where(torch.arange(SIZE) % 2 == 0, -a, b.abs())


def clamp(a, b):
    return torch.fmin(torch.fmax(a, -b.abs()), b.abs())


def clamp_but_nan(a, b):
    return torch.minimum(torch.maximum(a, -b.abs()), b.abs())


def fused(a, b):
    """a * b + b rounded once, by the C library for float32."""
    if a.dtype == torch.float32:
        fmaf = ctypes.CDLL(None).fmaf
        fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
        return torch.tensor([fmaf(x, y, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    x, y = a.double().numpy(), b.double().numpy()
    if a.dtype == torch.float16:
        return torch.from_numpy((x * y + y).astype(np.float16))
    exact, exponent = np.frexp(x * y + y)  # of numbers with 8 bits
    return torch.from_numpy(np.ldexp(np.rint(exact * 256), exponent - 8)).to(a.dtype)


def fma(dtype):
    def probe():
        generator = torch.Generator().manual_seed(2)
        a, b = torch.randn(2, SIZE, generator=generator).to(dtype)
        # Slightly below a tie of float32: rounded to float64 first, it would be one.
        a[:2] = torch.tensor([2.0**-24 * (1 - 2.0**-23), 1 + 2.0**-23])
        b[:2] = torch.tensor([1 + 2.0**-23, -1.0])
        got = torch.zeros(SIZE, dtype=dtype)
        arithmetic_kernel[(1,)](a, b, got, SIZE=SIZE, NAME="fma")
        return got, fused(a, b)

    return probe


def reduce(name, want):
    def probe():
        x, got = small_integers((SIZE,), BF16), torch.zeros(SIZE, dtype=BF16)
        reduce_kernel[(1,)](x, got, SIZE=SIZE, NAME=name)
        return got, want(x.float()).to(BF16).expand(SIZE)

    return probe


def dot(dtype):
    def probe():
        a, b = (small_integers((32, 32), torch.float32, seed).to(dtype) for seed in range(2))
        a.view(torch.uint8 if dtype.itemsize == 1 else torch.int16)[3, 4] = -1  # NaN
        got = torch.zeros(32, 32)
        dot_kernel[(1,)](a, b, got, SIZE=32)
        return got, a.float() @ b.float()

    return probe


FLOAT32, FLOAT16, INT32 = torch.float32, torch.float16, torch.int32
PROBES = {
    "cast float32 to bfloat16": cast(FLOAT32, BF16),
    "cast float16 to bfloat16": cast(FLOAT16, BF16),
    "cast int32 to bfloat16": cast(INT32, BF16),
    "cast bfloat16 to float32": cast(BF16, FLOAT32),
    "cast bfloat16 to float16": cast(BF16, FLOAT16),
    "cast float32 to float16": cast(FLOAT32, FLOAT16),
    "cast float32 to e4m3": cast(FLOAT32, E4M3),
    "cast float32 to e5m2": cast(FLOAT32, E5M2),
    "cast float16 to e4m3": cast(FLOAT16, E4M3),
    "cast bfloat16 to e4m3": cast(BF16, E4M3),
    "cast e4m3 to float32": cast(E4M3, FLOAT32),
    "cast e5m2 to float32": cast(E5M2, FLOAT32),
    "cast e4m3 to bfloat16": cast(E4M3, BF16),
    "cast float32 to bfloat16 toward zero": cast(FLOAT32, BF16, "rtz"),
    "cast float32 to float16 toward zero": cast(FLOAT32, FLOAT16, "rtz"),
    "arithmetic of bfloat16": arithmetic("multiply-add", BF16, multiply_add),
    "arithmetic of e4m3": arithmetic("multiply-add", E4M3, multiply_add_of_bytes),
    "arithmetic of e5m2": arithmetic("multiply-add", E5M2, multiply_add_of_bytes),
    "arithmetic of float16": arithmetic("multiply-add", FLOAT16, multiply_add),
    "comparison of bfloat16": arithmetic("compare", BF16, lambda a, b: torch.where(a < b, a, b)),
    "sign of bfloat16": arithmetic("sign", BF16, alternate_sign),
    "minimum of bfloat16": arithmetic("minimum", BF16, torch.fmin),
    "maximum of bfloat16": arithmetic("maximum", BF16, torch.fmax),
    "minimum of float32": arithmetic("minimum", FLOAT32, torch.fmin),
    "maximum of float32": arithmetic("maximum", FLOAT32, torch.fmax),
    "clamp of float32": arithmetic("clamp", FLOAT32, clamp),
    "clamp of bfloat16": arithmetic("clamp", BF16, clamp),
    "clamp of bfloat16 but NaN": arithmetic("clamp but NaN", BF16, clamp_but_nan),
    "constant of bfloat16": arithmetic("full", BF16, lambda a, b: torch.full_like(a, 1.239)),
    "fma of float32": fma(FLOAT32),
    "fma of float16": fma(FLOAT16),
    "fma of bfloat16": fma(BF16),
    "inline assembly": arithmetic("assembly", FLOAT32, lambda a, b: a * b),
    "sum of bfloat16": reduce("sum", torch.sum),
    "max of bfloat16": reduce("max", torch.max),
    "scan of bfloat16": reduce("cumsum", lambda x: x.cumsum(0)),
    "dot of bfloat16": dot(BF16),
    "dot of e4m3": dot(E4M3),
    "dot of e5m2": dot(E5M2),
    "dot of float16": dot(FLOAT16),
}


def is_right(probe) -> bool:
    got, want = probe()
    got, want = got.float(), want.float()
    return bool(((got == want) | (got.isnan() & want.isnan())).all())


@pytest.mark.parametrize("name", PROBES)
def test_corrected(name):
    with corrections():
        got, want = PROBES[name]()
    torch.testing.assert_close(got.float(), want.float(), rtol=0, atol=0, equal_nan=True)


# What the interpreter of a version needs no correction for, and the corrections that change nothing
# in it. A version that is not here gets a warning with what to write here.
RIGHT_ALWAYS = {
    "arithmetic of float16",
    "cast bfloat16 to float16",
    "cast bfloat16 to float32",
    "cast float32 to bfloat16 toward zero",
    "cast float32 to float16",
    "dot of e5m2",
    "dot of float16",
    "max of bfloat16",
}
EXTREMES = {"clamp of float32", "maximum of float32", "minimum of float32"}
RIGHT_IN_STOCK = {
    "3.6": RIGHT_ALWAYS | {"scan of bfloat16"},
    "3.7": RIGHT_ALWAYS | {"scan of bfloat16"},
    "3.8": RIGHT_ALWAYS
    | EXTREMES
    | {"maximum of bfloat16", "minimum of bfloat16", "scan of bfloat16"},
    "3.9": RIGHT_ALWAYS | EXTREMES | {"fma of float16", "fma of float32"},
}
NEEDLESS = {
    "3.6": {"ternary_op", "unary_op"},
    "3.7": {"ternary_op", "unary_op"},
    "3.8": {"create_clampf", "create_maxnumf", "create_minnumf", "ternary_op"},
    "3.9": {"create_clampf", "create_maxnumf", "create_minnumf", "get_bf16"},
}
VERSION = ".".join(triton.__version__.split(".")[:2])


def right_probes() -> set[str]:
    right = set()
    for name, probe in PROBES.items():
        # Whatever the interpreter lacks, and numpy's warnings of overflow.
        with contextlib.suppress(Exception), np.errstate(all="ignore"):
            right |= {name} if is_right(probe) else set()
    return right


def compare_with_record(what: str, found: set[str], record: dict[str, set[str]]) -> None:
    if VERSION in record:
        assert found == record[VERSION], f"{what} of triton {VERSION}"
    else:
        warnings.warn(f"{what} of triton {VERSION} is not recorded: {sorted(found)}", stacklevel=2)


def test_what_the_stock_interpreter_does():
    compare_with_record("RIGHT_IN_STOCK", right_probes(), RIGHT_IN_STOCK)


def test_each_correction_is_needed():
    """Without it a probe fails, and no others are needed."""
    needless = set()
    for name in CORRECTIONS:
        with corrections(left_out=name):
            needless |= {name} if right_probes() == set(PROBES) else set()
    compare_with_record("NEEDLESS", needless, NEEDLESS)
