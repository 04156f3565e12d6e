"""WeightFormat: the integers that say how the tensors of a quantized weight are read, and the rule.

    w[n, k] = S * (T[c] - z)      S = scales * s0, groups of block_n rows by block_k columns

for the zero kinds none (z = 0), midpoint (z = 2**(bits-1)) and code; for the zero kind value it is
w = S * T[c] + v. T is the identity or a table of 2**bits entries. Everything is computed in float32
with one rounding an operation, so every backend can reproduce it bit for bit.
"""

from typing import Any, NamedTuple

import torch

from lowbit.errors import refuse
from lowbit.formats.packing import PLANE_WIDTHS, plane_words, unpack_codes

FORMAT_VERSION = 1
ZERO_KINDS = ("none", "midpoint", "code", "value")
LAYOUTS = ("canonical",)
SCALE_DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e8m0fnu,
)
ZERO_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
TABLE_BITS = (1, 2, 3, 4)
PARTS = ("qweight", "scales", "zeros", "table", "s0")


class WeightFormat(NamedTuple):
    """The integers that tell how the tensors of a weight are read; the ops take it as int[]."""

    version: int
    bits: int
    n: int
    k: int
    block_n: int
    block_k: int
    zero_kind: int
    layout: int = 0

    @property
    def scale_shape(self) -> tuple[int, int]:
        """The shape of scales and zeros."""
        return -(-self.n // self.block_n), -(-self.k // self.block_k)


def read_format(where: str, numbers: Any) -> WeightFormat:
    """A WeightFormat from the integers of a file; refuses a newer format_version by name."""
    numbers = numbers.tolist() if isinstance(numbers, torch.Tensor) else list(numbers)
    if not numbers or numbers[0] != FORMAT_VERSION:
        version = numbers[0] if numbers else "none"
        remedy = "the weight was written by another lowbit: install that version or a newer one"
        refuse(where, "format_version", f"be {FORMAT_VERSION}", version, remedy)
    if len(numbers) != len(WeightFormat._fields):
        refuse(where, "format", f"hold {len(WeightFormat._fields)} integers", len(numbers))
    return WeightFormat(*numbers)


def dequantize_parts(
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    fmt: WeightFormat,
) -> torch.Tensor:
    """The value rule in float32: what every backend's dequantization equals bit for bit."""
    codes = unpack_codes(qweight, fmt.bits, fmt.k)
    t = codes.float() if table is None else table[codes.long()]
    scale = scales.float().repeat_interleave(fmt.block_n, 0)[: fmt.n]
    if s0 is not None:
        scale = scale * s0.reshape(-1, 1)
    kind = ZERO_KINDS[fmt.zero_kind]
    if kind == "midpoint":
        t = t - float(1 << (fmt.bits - 1))
    elif kind == "code":
        t = t - _spread(zeros.float().repeat_interleave(fmt.block_n, 0)[: fmt.n], fmt)
    w = t * _spread(scale, fmt)
    if kind == "value":
        w = w + _spread(zeros.float().repeat_interleave(fmt.block_n, 0)[: fmt.n], fmt)
    return w


def _spread(groups: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """One value a group [N, G] -> one a column [N, K]."""
    return groups.repeat_interleave(min(fmt.block_k, fmt.k), 1)[:, : fmt.k]


def check_weight(
    where: str,
    qweight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    table: torch.Tensor | None,
    s0: torch.Tensor | None,
    fmt: WeightFormat,
) -> None:
    """Raise unless the tensors fit the format. Reads shapes and dtypes, never data."""
    check_format(where, fmt)
    words = sum(plane_words(fmt.bits, fmt.k))
    _check_tensor(where, "qweight", qweight, (fmt.n, words), (torch.int32,), qweight.device)
    _check_tensor(where, "scales", scales, fmt.scale_shape, SCALE_DTYPES, qweight.device)
    if (zeros is not None) != (ZERO_KINDS[fmt.zero_kind] in ("code", "value")):
        kind = ZERO_KINDS[fmt.zero_kind]
        need = f"{'be None' if zeros is not None else 'be a tensor'} for zero kind {kind}"
        refuse(where, "zeros", need, None if zeros is None else "a tensor")
    if zeros is not None:
        _check_tensor(where, "zeros", zeros, fmt.scale_shape, ZERO_DTYPES, qweight.device)
    if table is not None:
        if fmt.bits not in TABLE_BITS:
            refuse(where, "table", "be None above 4 bits", f"a table for {fmt.bits} bits")
        _check_tensor(where, "table", table, (1 << fmt.bits,), (torch.float32,), qweight.device)
    if s0 is not None:
        shape = () if s0.dim() == 0 else (fmt.n,)
        _check_tensor(where, "s0", s0, shape, (torch.float32,), qweight.device)


def check_format(where: str, fmt: WeightFormat) -> None:
    """Raise ValueError unless the integers describe a format that this package reads."""
    read_format(where, fmt)
    if fmt.bits not in PLANE_WIDTHS:
        refuse(where, "bits", "be 1 to 8", fmt.bits)
    if fmt.n < 0 or fmt.k < 1:
        refuse(where, "shape", "have N >= 0 rows and K >= 1 columns", [fmt.n, fmt.k])
    if fmt.block_n < 1 or fmt.block_k < 1:
        refuse(where, "block", "be at least 1 by 1", [fmt.block_n, fmt.block_k])
    if not 0 <= fmt.zero_kind < len(ZERO_KINDS):
        refuse(where, "zero_kind", f"be 0 to {len(ZERO_KINDS) - 1}", fmt.zero_kind)
    if not 0 <= fmt.layout < len(LAYOUTS):
        refuse(where, "layout", f"be 0 to {len(LAYOUTS) - 1}", fmt.layout)


def _check_tensor(where, name, tensor, shape, dtypes, device) -> None:
    if tensor.dtype not in dtypes:
        need = "have dtype " + " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        refuse(where, name, need, str(tensor.dtype).removeprefix("torch."), error=TypeError)
    if tuple(tensor.shape) != tuple(shape):
        refuse(where, name, f"have shape {list(shape)}", list(tensor.shape))
    if tensor.device != device:
        refuse(where, name, f"be on {device} with qweight", tensor.device, "move it with .to()")
    if tensor.dim() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        need = "have unit stride along its last dimension"
        refuse(where, name, need, f"strides {list(tensor.stride())}", "call .contiguous()")
