"""Mistakes to seed into the texts of the Triton kernels: each must be found by the interpreter."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

KERNELS = Path(__file__).resolve().parents[2] / "triton_kernels"


@dataclass(frozen=True)
class Mistake:
    """`right` stands once in triton_kernels/<op>.py and becomes `wrong`."""

    op: str
    name: str
    right: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.op}: {self.name}"


DEQUANTIZE = "dequantize_weight"
MISTAKES = tuple(
    Mistake(DEQUANTIZE, *parts)
    for parts in (
        # masks
        ("loads words of rows behind n", "mask = inside[:, None] & (index < num_words)[None, :]",
         "mask = (inside | True)[:, None] & (index < num_words)[None, :]"),
        ("loads words behind a plane", "(index < num_words)", "(index < num_words + 1)"),
        ("loads scales behind k", "(starts < k - first)", "(starts < k - first + RUN)"),
        ("loads s0 behind n", "s0_stride, inside, other=0)", "s0_stride)"),
        ("stores behind k", "(columns < k - first)[None, :]", "(columns < k)[None, :]"),
        ("stores behind n", "mask = inside[:, None] & (columns",
         "mask = (inside | True)[:, None] & (columns"),
        ("stores one column less", "(columns < k - first)", "(columns < k - first - 1)"),
        ("stores one row less", "tl.arange(0, ROWS) < n - first_row",
         "tl.arange(0, ROWS) < n - first_row - 1"),
        # codes
        ("shifts by one bit too few", "tl.arange(0, PER_WORD) * WIDTH",
         "tl.arange(0, PER_WORD) * (WIDTH - 1)"),
        ("fields of one bit less", "((1 << WIDTH) - 1)", "((1 << (WIDTH - 1)) - 1)"),
        ("higher planes in the lowest bits", "higher << WIDTH", "higher"),
        ("planes shifted by all bits", "higher << WIDTH", "higher << BITS"),
        ("every plane the first", "_load_codes(plane + num_words,", "_load_codes(plane,"),
        ("planes without the tail's word", "(k - 1) // PER_WORD + 1", "k // PER_WORD"),
        ("words of the first tile", "first // PER_WORD + tl", "tl"),
        ("numbers from 2**22", "0x4B000000", "0x4A800000"),
        ("reads words to the sign", "(words[:, :, None] >> shifts[None, None, :]) &",
         "(words[:, :, None] << shifts[None, None, :]) &"),
        # scales and zeros
        ("scales of the next group", "(first + starts) // BLOCK_K",
         "(first + starts + 1) // BLOCK_K"),
        ("groups counted from the tile", "(first + starts) // BLOCK_K", "starts // BLOCK_K"),
        ("a scale row for each row", "rows // block_n", "rows"),
        ("zeros where the scales are", "zeros + blocks * zeros_stride",
         "zeros + blocks * scales_stride"),
        ("s0 of the first row", "s0 + rows * s0_stride", "s0 + rows * 0"),
        ("s0 forgotten", "if s0 is not None:", "if False:"),
        ("midpoint one too high", "1 << (BITS - 1)", "(1 << (BITS - 1)) + 1"),
        ("zero added", "numbers -= _spread(zero", "numbers += _spread(zero"),
        ("zero in the other kind", "if ZERO_KIND == CODE:", "if ZERO_KIND == VALUE:"),
        ("zero scaled", "weights += _spread(zero", "weights += numbers * _spread(zero"),
        ("runs longer than groups", "RUN=min(block_k & -block_k, columns)",
         "RUN=min(2 * (block_k & -block_k), columns)"),
        ("e8m0 without 2**-127", "tl.where(exponent == 0, 1 << 22, exponent << 23)",
         "exponent << 23"),
        ("e8m0 without NaN", "tl.where(exponent == 255, 0x7FC00000, bits)", "bits"),
        ("e4m3 of another bias", "1.329227995784916e36", "6.64613997892458e35"),
        ("e4m3 without NaN", "magnitude == 0x7F", "magnitude == 0xFF"),
        ("e4m3 without sign", "bits | ((byte & 0x80) << 24)", "bits"),
        # launch
        ("a program too few", "triton.cdiv(n, rows) *", "(n // rows) *"),
        ("rows of the tile beside", "// num_tiles * ROWS", "% num_tiles * ROWS"),
        ("groups as long as k", "min(block_k, triton.next_power_of_2(k))",
         "triton.next_power_of_2(k)"),
    )
)  # fmt: skip


def mistaken(mistake: Mistake, folder: Path) -> mock._patch_dict:
    """While the result is entered, ops launch the mistaken text, a copy in `folder`."""
    text = (KERNELS / f"{mistake.op}.py").read_text()
    assert text.count(mistake.right) == 1, f"{mistake}: found {text.count(mistake.right)} times"
    copy = folder / f"{mistake.op}.py"
    copy.write_text(text.replace(mistake.right, mistake.wrong))
    return mock.patch.dict(sys.modules, {f"lowbit.triton_kernels.{mistake.op}": load(copy)})


def load(path: Path) -> ModuleType:
    name = f"lowbit.triton_kernels.mistaken_{path.parent.name}"  # it imports from its neighbours
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
