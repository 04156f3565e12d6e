"""What Triton's interpreter (TRITON_INTERPRET=1) computes wrongly, put right.

It keeps bfloat16 and 8-bit floats as integers and does arithmetic on those; its casts to them do
not round to nearest even, and neither saturate nor keep NaN. Within `corrections()` such values
are decoded before an operation and encoded after it, rounded once, and overflow to 8 bits
saturates, as the conversions of the hardware do. check_interpreter.py probes each feature.

What stays: products of float32 keep all bits where the hardware drops 13 (tf32), and a reduction
of bfloat16 is rounded once, not after each step.
"""

import contextlib
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

# Kept as integers by the interpreter: as torch knows them, and where overflow saturates.
CODED = {
    tl.bfloat16: (torch.bfloat16, None),
    tl.float8e4nv: (torch.float8_e4m3fn, 448.0),
    tl.float8e5: (torch.float8_e5m2, 57344.0),
}
ROUNDED = {**CODED, tl.float16: (torch.float16, None)}
BITS_OF_SIZE = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.uint16)}


def codes_less_zeros(runs, zeros, selector, shift, mask):
    """Of each run the code at a bit of one of its halves, as a number, less its zero."""
    half = np.where(selector == 0x7632, 16, 0)
    return ((runs >> half >> shift) & (mask & 0xFFFF)).astype(np.float32) - zeros


# Inline assembly by its text: what it computes.
INLINE_ASM = {
    "mul.rn.f32 $0, $1, $2;": np.multiply,
    """{
    .reg .b32 t, one, least;
    prmt.b32 t, $1, $2, $4;
    shr.u32 t, t, $6;
    lop3.b32 t, t, $8, 0x43004300, 0xEA;
    mov.b32 one, 0x3F803F80;
    mov.b32 least, 0xC300C300;
    fma.rn.bf16x2 t, t, one, least;
    mov.b32 one, 0xBF80BF80;
    fma.rn.bf16x2 $0, $3, one, t;
}""": codes_less_zeros,
    """{
    .reg .b32 t, least;
    prmt.b32 t, $1, $2, $4;
    shr.u32 t, t, $6;
    lop3.b32 t, t, $8, 0x64006400, 0xEA;
    mov.b32 least, 0x64006400;
    sub.rn.f16x2 t, t, least;
    sub.rn.f16x2 $0, t, $3;
}""": codes_less_zeros,
}
STOCK = {
    name: getattr(InterpreterBuilder, name)
    for name in ("binary_op", "unary_op", "ternary_op", "cast_impl", "create_fma", "create_dot")
}

STOCK_APPLY = interpreter.ReduceScanOpInterface.apply


# ---- values ----


def is_coded(*handles) -> bool:
    return any(handle.dtype.scalar in CODED for handle in handles)


def decode(data: np.ndarray, dtype) -> np.ndarray:
    """What the stored numbers stand for; float32 for those kept as integers."""
    if dtype not in CODED:
        return data
    kind = CODED[dtype][0]
    bits = torch.from_numpy(np.array(data).view(BITS_OF_SIZE[kind.itemsize][1]))
    return bits.view(kind).float().numpy()


def values(handle) -> np.ndarray:
    return decode(handle.data, handle.dtype.scalar)


def encode(numbers: np.ndarray, dtype, toward_zero: bool = False) -> np.ndarray:
    """As the interpreter stores them: rounded once, to nearest even or toward zero."""
    if dtype not in ROUNDED:
        return numbers.astype(interpreter._get_np_dtype(dtype))
    kind, largest = ROUNDED[dtype]
    numbers = numbers if numbers.dtype == np.float32 else round_to_odd(numbers.astype(np.float64))
    wide = torch.from_numpy(np.array(numbers))
    if largest is not None:
        wide = wide.clamp(-largest, largest)  # which keeps NaN
    signed, unsigned = BITS_OF_SIZE[kind.itemsize]
    bits = wide.to(kind).view(signed).numpy().view(unsigned)
    stored = bits if dtype in CODED else bits.view(np.float16)
    if toward_zero:
        bits -= np.abs(decode(stored, dtype)) > np.abs(numbers)
    return stored


def round_to_odd(numbers: np.ndarray) -> np.ndarray:
    """float64 in float32, of inexact ones the neighbour that ends in 1.

    Another rounding to fewer bits then gives the same as one rounding of the float64.
    """
    near = numbers.astype(np.float32)
    even = (near.view(np.uint32) & 1) == 0
    inexact = (near != numbers) & ~np.isnan(numbers)
    toward = np.nextafter(near, np.where(near < numbers, np.inf, -np.inf).astype(np.float32))
    return np.where(even & inexact, toward, near)


def sum_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b in float64, of inexact sums the neighbour that ends in 1."""
    total = np.asarray(a + b)
    of_b = total - a
    error = (a - (total - of_b)) + (b - of_b)  # exact (Knuth)
    even = (total.view(np.uint64) & 1) == 0
    inexact = np.isfinite(error) & (error != 0)
    toward = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where(even & inexact, toward, total)


def handle_of(numbers: np.ndarray, dtype):
    """The handle of a result, which is of the type of its operands or a truth value."""
    if numbers.dtype == np.bool_:
        return TensorHandle(numbers, tl.int1)
    return TensorHandle(encode(numbers, dtype), dtype)


# ---- operations of the interpreter's builder ----


def binary_op(self, lhs, rhs, op):
    if not is_coded(lhs, rhs):
        return STOCK["binary_op"](self, lhs, rhs, op)
    return handle_of(op(values(lhs), values(rhs)), lhs.dtype.scalar)


def unary_op(self, arg, op):
    if not is_coded(arg):
        return STOCK["unary_op"](self, arg, op)
    return handle_of(op(values(arg)), arg.dtype.scalar)


def ternary_op(self, lhs, rhs, other, op):
    if op is np.where or not is_coded(lhs, rhs, other):
        return STOCK["ternary_op"](self, lhs, rhs, other, op)
    return handle_of(op(values(lhs), values(rhs), values(other)), other.dtype.scalar)


def cast_impl(self, src, dst_type, toward_zero=False):
    dtype = dst_type.scalar
    if dtype not in ROUNDED and not is_coded(src):
        return STOCK["cast_impl"](self, src, dst_type)
    return TensorHandle(encode(values(src), dtype, toward_zero), dtype)


def create_fp_to_fp(self, src, dst_type, rounding_mode):
    return cast_impl(self, src, dst_type, rounding_mode == interpreter._ir.ROUNDING_MODE.RTZ)


def create_fma(self, x, y, z):
    if z.dtype.scalar == tl.float64:
        return STOCK["create_fma"](self, x, y, z)
    product = values(x).astype(np.float64) * values(y)  # exact: both have 24 bits at most
    total = sum_to_odd(product, values(z).astype(np.float64))
    return TensorHandle(encode(total, z.dtype.scalar), z.dtype.scalar)


def create_dot(self, a, b, d, *precision):
    if not is_coded(a, b, d):
        return STOCK["create_dot"](self, a, b, d, *precision)
    product = np.matmul(values(a), values(b), dtype=np.float32)
    return TensorHandle(encode(product + values(d), d.dtype.scalar), d.dtype.scalar)


def create_minnumf(self, lhs, rhs):
    return self.binary_op(lhs, rhs, np.fmin)


def create_maxnumf(self, lhs, rhs):
    return self.binary_op(lhs, rhs, np.fmax)


def create_clampf(self, arg, lo, hi, propagate_nans):
    if propagate_nans != interpreter._ir.PROPAGATE_NAN.NONE:
        return self.ternary_op(arg, lo, hi, np.clip)
    return self.create_minnumf(self.create_maxnumf(arg, lo), hi)


def get_bf16(self, value):
    return self.cast_impl(self.get_fp32(value), tl.bfloat16)


class _Results(tuple):
    def get_result(self, index):
        return self[index]


def create_inline_asm(self, text, constraints, arguments, types, is_pure, pack):
    if text not in INLINE_ASM:
        raise NotImplementedError(f"inline assembly must be in INLINE_ASM, got {text!r}")
    result = INLINE_ASM[text](*map(values, arguments))
    return _Results([TensorHandle(encode(result, types[0].scalar), types[0].scalar)])


def apply(self, input):
    """Reductions and scans: of float32 in place of the coded types."""
    if not isinstance(input, tuple):
        return self.apply((input,))[0]
    results = STOCK_APPLY(self, tuple(_retyped(value, tl.float32) for value in input))
    kinds = [value.dtype for value in input]
    return tuple(_retyped(r, kind) for r, kind in zip(results, kinds, strict=False))


def _retyped(tensor, dtype):
    """A coded tensor as float32, or a float32 one in a coded type; others as they are."""
    if tensor.dtype not in CODED and dtype not in CODED:
        return tensor
    handle = TensorHandle(encode(values(tensor.handle), dtype), dtype)
    shape = tensor.shape
    return tl.core.tensor(handle, tl.block_type(dtype, list(shape)) if shape else dtype)


BUILDER_METHODS = (
    binary_op, unary_op, ternary_op, cast_impl, create_fp_to_fp, create_fma, create_dot,
    create_minnumf, create_maxnumf, create_clampf, create_inline_asm, get_bf16,
)  # fmt: skip
CORRECTIONS = {method.__name__: (InterpreterBuilder, method) for method in BUILDER_METHODS}
CORRECTIONS["apply"] = (interpreter.ReduceScanOpInterface, apply)


@contextlib.contextmanager
def corrections(left_out: str | None = None):
    """Within the block the interpreter computes as the hardware does, but for the one left out."""
    with contextlib.ExitStack() as stack:
        for name, (owner, function) in CORRECTIONS.items():
            if name != left_out:
                stack.enter_context(mock.patch.object(owner, name, function, create=True))
        # Overflow to infinity is a value like others here; numpy warns of it.
        stack.enter_context(np.errstate(all="ignore"))
        yield
