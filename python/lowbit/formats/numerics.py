"""The named numeric modes of the ops (docs/numerics.md has the bound of each)."""

import torch

from lowbit.errors import refuse

MODES = ("exact", "bf16", "fp16")
_OPERAND_DTYPES = (None, torch.bfloat16, torch.float16)
_IDS = {name: number for number, name in enumerate(MODES)}


def mode_id(op: str, mode: str | None) -> int:
    """The number that stands for a mode in op schemas; None is `exact`. ValueError if unknown."""
    if mode is None:
        return 0
    if mode not in _IDS:
        refuse(op, "mode", f"be one of {', '.join(MODES)}", repr(mode))
    return _IDS[mode]


def round_operand(x: torch.Tensor, mode: int) -> torch.Tensor:
    """x rounded once to the mode's operand precision (half to even), as float32."""
    dtype = _OPERAND_DTYPES[mode]
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
