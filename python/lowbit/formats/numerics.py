"""The named numeric modes of the ops (docs/numerics.md has their bounds), and float helpers."""

import torch

from lowbit.errors import refuse

MODES = ("exact", "bf16", "fp16", "int8x2", "dense")
EXACT, BF16, FP16, INT8X2, DENSE = range(5)
# What a mode rounds x and table entries to.
_ROUNDED_TO = (None, torch.bfloat16, torch.float16, None, None)
_IDS = {name: number for number, name in enumerate(MODES)}


def check_mode(where: str, mode: str | None) -> None:
    """ValueError unless it names a mode, or is None, which leaves the choice to the call."""
    if mode is not None:
        mode_id(where, mode)


def mode_id(op: str, mode: str) -> int:
    """The number that stands for a mode in op schemas. ValueError if unknown."""
    if mode not in _IDS:
        refuse(op, "mode", f"be one of {', '.join(MODES)}", repr(mode))
    return _IDS[mode]


def default_mode(device_type: str, dtype: torch.dtype) -> str:
    """The mode of weight_only_linear for x of this kind where the caller names none.

    The fastest one whose error is small beside that of the quantized weight.
    """
    if device_type == "cpu":
        return "bf16" if dtype == torch.bfloat16 else "int8x2"
    if device_type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        return "dense"
    return "exact"


def operand_dtype(mode: int, dtype: torch.dtype, table: bool) -> torch.dtype:
    """The dtype that holds the numbers which are multiplied, for x of a dtype.

    table: whether the weight has one; its entries are float32 where the mode does not round them.
    """
    if mode == INT8X2:
        return torch.int8
    if mode == EXACT and table:
        return torch.float32
    return _ROUNDED_TO[mode] or dtype


def round_operand(x: torch.Tensor, mode: int) -> torch.Tensor:
    """x or a table in the precision that the mode reads it with (rounded half to even), as float32.

    int8x2 rounds to integers of each chunk instead (formats/int8x2.py); x stays as it is here.
    """
    dtype = _ROUNDED_TO[mode]
    return x.float() if dtype is None else x.to(dtype).float()


def matmul_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b of float32 matrices with float32 products and sums or better.

    torch's matmul precision settings may allow it to round the operands to bfloat16 or TF32;
    float64 is out of their reach.
    """
    if _keeps_float32() or a.device.type == "mps":
        return torch.matmul(a, b)
    return torch.matmul(a.double(), b.double()).float()


def _keeps_float32() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # a setting of torch.backends.*.fp32_precision makes the question an error
        return False


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a * b + c of float32 tensors, rounded once, as fused multiply-add instructions round.

    The product is exact in float64. The sum is rounded to odd there, which keeps the second
    rounding, to float32, from seeing a false tie (Boldo and Melquiond, IEEE TC 57(4), 2008).
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    part = total - product
    lost = (product - (total - part)) + (c - part)  # exact (Knuth's TwoSum); NaN beyond the range
    inexact = (lost > 0) | (lost < 0)
    bits = total.view(torch.int64)
    step = torch.where((lost > 0) == (total > 0), 1, -1)
    to_odd = torch.where(inexact & (bits & 1 == 0), step, 0)
    return (bits + to_odd).view(torch.float64).float()
