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


DEQUANTIZE, LINEAR = "dequantize_weight", "weight_only_linear"
_DEQUANTIZE = tuple(
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

_LINEAR = tuple(
    Mistake(LINEAR, *parts)
    for parts in (
        # codes
        ("runs of a unit alike", "runs // PER_UNIT\n", "runs\n"),
        ("no runs within a unit", "loaded >> (runs % PER_UNIT * BITS)[None, :]", "loaded"),
        ("units of the first chunk", "index = first // (UNIT // WIDTH) + runs", "index = runs"),
        ("a unit behind the plane", "(k - 1) // (UNIT // WIDTH) + 1",
         "(k - 1) // (UNIT // WIDTH) + 2"),
        ("the middle plane before its place", "low_plane + ((k - 1) // (32 // LOW) + 1)",
         "low_plane + k // (32 // LOW)"),
        ("the high plane in the middle one", "middle_plane + ((k - 1) // (32 // MIDDLE) + 1)",
         "middle_plane"),
        ("the middle plane in the lowest bits", "((1 << MIDDLE) - 1)) << LOW",
         "((1 << MIDDLE) - 1))"),
        ("the high plane shifted too far", "& 1) << (LOW + MIDDLE)", "& 1) << (LOW + MIDDLE + 1)"),
        ("codes of the next phase", "SHIFT: tl.constexpr = PHASE * BITS",
         "SHIFT: tl.constexpr = PHASE * BITS + BITS"),
        ("always the lower half of a run", "0x7632 if SHIFT >= 16 else 0x5410", "0x5410"),
        ("numbers from 2**22", "codes | 0x4B000000", "codes | 0x4A800000"),
        # zeros and scales
        ("zero forgotten", "(BIG + zero)", "BIG"),
        ("middle code one too high", "1 << (BITS - 1) if", "(1 << (BITS - 1)) + 1 if"),
        ("zero added", "numbers -= zero", "numbers += zero"),
        ("value taken off", "numbers += zero", "numbers -= zero"),
        ("zero subtracted from values", "if ZERO_KIND != NONE and ZERO_KIND != VALUE:",
         "if ZERO_KIND != NONE:"),
        ("scales of the next group", "((first + starts) // BLOCK_K)",
         "((first + starts + 1) // BLOCK_K)"),
        ("scales of the first chunk", "((first + starts) // BLOCK_K)", "(starts // BLOCK_K)"),
        ("one scale for a chunk of many groups", "GROUPS=1 if group >= columns else LENGTH.value",
         "GROUPS=1"),
        ("scales behind k", "(starts < left)", "(starts < left + LENGTH)"),
        ("scales behind n", "mask = inside[:, None] & (starts",
         "mask = (inside | True)[:, None] & (starts"),
        ("a scale row for each row", "rows // block_n", "rows"),
        ("zeros where the scales are", "zeros + blocks * zeros_stride",
         "zeros + blocks * scales_stride"),
        ("s0 of the first row", "s0 + rows * s0_stride", "s0 + rows * 0"),
        ("s0 forgotten", "scale *= second_scale", "pass"),
        ("group deeper than it is", "group = block_k & -block_k",
         "group = 2 * (block_k & -block_k)"),
        ("scale of a chunk without its sums", "tl.fma(of_chunk, tl", "tl.fma(sums, tl"),
        # x
        ("even columns as odd ones", "even, odd = tl.split", "odd, even = tl.split"),
        ("x behind k", "mask = mask & (columns < left)[None, :]", "pass"),
        ("what the padding selects", "tl.where((columns < left)[None, :], weights, 0.0)",
         "weights"),
        ("columns in another order", "index = tl.load(permutation + first",
         "index = 0 * first + tl.load(permutation + 0 * first"),
        ("rows of the first tile", "first_m + tl.arange(0, BLOCK_M).to",
         "tl.arange(0, BLOCK_M).to"),
        ("rows of x as dense", "rows_m * x_stride", "rows_m * k"),
        # sums
        ("a chunk less", "(split + 1) * chunks, (k - 1) // COLUMNS + 1)",
         "(split + 1) * chunks, k // COLUMNS)"),
        ("a split less", "(part + 1) * splits_of_part, splits)",
         "(part + 1) * splits_of_part, splits - 1)"),
        ("splits overwrite each other", "total += sums", "total = sums"),
        ("parts overwrite each other", "out += part.to(tl.int64) * m * n", "out += 0 * part"),
        ("the first part again", "sums += size", "sums += 0 * size"),
        ("parts without the last", "for _ in range(parts)", "for _ in range(parts - 1)"),
        ("bias twice", "None if split else bias", "bias"),
        ("low-rank term forgotten", "sums += tl.load(addend + offsets, mask, other=0)", "pass"),
        ("bias of the first column", "offsets % n, mask, bias", "offsets * 0, mask, bias"),
        ("stores behind n", "mask = inside[:, None] & inside_m[None, :]",
         "mask = (inside | True)[:, None] & inside_m[None, :]"),
        ("stores behind m", "inside[:, None] & inside_m[None, :]", "inside[:, None]"),
        # launch
        ("programs of one tile of x", "tiles_m = triton.cdiv(m, cut.block_m)", "tiles_m = 1"),
        ("programs of one part", "triton.cdiv(n, cut.rows) * parts * tiles_m,",
         "triton.cdiv(n, cut.rows) * tiles_m,"),
        ("zeros that are no integers", "zeros.dtype == torch.uint8", "True"),
        ("weights rounded where they may not be", "if not scaled and not may_round:", "if False:"),
    )
)  # fmt: skip
MISTAKES = _DEQUANTIZE + _LINEAR


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
