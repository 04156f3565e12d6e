"""The Triton kernels, compiled for each architecture, keep their limits; run by test_triton.py."""

import importlib
import itertools
import re

import pytest
import torch
from triton.compiler.errors import CompilationError

from lowbit import registry
from tests.facts.cubins import ARCHS
from tests.facts.verdict import failures
from tests.triton_cpu.ahead_of_time import compiling_for, facts_of
from tests.triton_cpu.limits import LIMITS
from tests.triton_cpu.mistakes import KERNELS, Mistake, mistaken

DEQUANTIZE, LINEAR = LIMITS[:2]
OF_BYTES, ALIGNED = DEQUANTIZE.calls[0], DEQUANTIZE.calls[2]


def by_default(group: int, call: int, arch: int) -> bool:
    """The first call of the first two groups on each architecture; a few of all others."""
    if call == 0:
        return group < 2 or arch == group % len(ARCHS)
    return group == 0 and call == 1 + arch % 3


def known_fault(call, arch: str) -> str | None:
    """What breaks the limits today, whose remedy would change how these linears multiply."""
    if call.op == LINEAR.entries[0].source and (call.weight.bits, call.weight.block_k) == (7, 16):
        return "runs of one code from three planes spill registers"
    if call.mode == "bf16" and arch in ("89", "120a"):
        return "entries of tables take a third of the shared memory and more"
    return None


def every_call():
    for g, limits in enumerate(LIMITS):
        for (i, call), (j, arch) in itertools.product(enumerate(limits.calls), enumerate(ARCHS)):
            marks = [] if by_default(g, i, j) else [pytest.mark.slow]
            if fault := known_fault(call, arch):
                marks.append(pytest.mark.xfail(reason=fault, strict=True))
            name = f"{call.op}-{call}-sm_{arch}"
            yield pytest.param(limits.entries, call, arch, marks=marks, id=name)


def launch(call, arch, out=None):
    """The kernels that the op's launcher compiles for a call."""
    args = call.make()
    out = registry.OPS[call.op].allocate(*args) if out is None else out
    with compiling_for(arch) as kernels:
        importlib.import_module(f"lowbit.ops.{call.op}").run_triton(*args, out)
    return kernels


def verdict(entries, call, arch, **options) -> str:
    return "\n\n".join(failures(arch, map(facts_of, launch(call, arch, **options)), entries))


def test_every_kernel_has_limits():
    """Every file with a kernel, and every kernel in it."""
    found = set()
    for path in KERNELS.glob("*.py"):
        names = re.findall(r"^@triton\.jit\(.*\ndef (\w+)", path.read_text(), re.MULTILINE)
        found |= {(path.stem, name) for name in names}
    assert found == {(e.source, e.kernel) for limits in LIMITS for e in limits.entries}


@pytest.mark.parametrize(("entries", "call", "arch"), list(every_call()))
def test_limits(entries, call, arch):
    found = verdict(entries, call, arch)
    assert not found, found


# ---- the checks fail on mistakes ----


def test_arguments_are_specialised_as_in_a_launch():
    """An output that is not aligned to 16 bytes is stored in smaller pieces."""
    out = torch.empty(64 * 4096 + 1)[1:].view(64, 4096)
    assert "STG.128 is required, got none" in verdict(DEQUANTIZE.entries, ALIGNED, "90a", out=out)


MULTIPLICATION = "weights = multiply(numbers, _spread(scale, RUN, ROWS, COLUMNS))"
FUSED = "factor = _spread(scale, RUN, ROWS, COLUMNS); weights = tl.fma(numbers, factor, factor)"


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        (MULTIPLICATION, FUSED, "FFMA is forbidden, got some"),
        ('"mul.rn.f32 $0', '"mul.rn.ftz.f32 $0', "FMUL.FTZ is forbidden, got some"),
        ("ROWS=rows", "ROWS=8 * rows", "registers must be at most 64, got"),
        ("ROWS=rows", "ROWS=rows, maxnreg=24", "spill stores must be at most 0, got"),
    ],
)
def test_a_mistake_is_told(right, wrong, sentence, tmp_path):
    with mistaken(Mistake(DEQUANTIZE.entries[0].source, sentence, right, wrong), tmp_path):
        text = verdict(DEQUANTIZE.entries, OF_BYTES, "80")
    assert sentence in text


@pytest.mark.parametrize(
    ("group", "right", "wrong", "sentence"),
    [
        (-1, 'input_precision="ieee"', 'input_precision="tf32"', "HMMA is forbidden, got some"),
        (1, "            weights = _integers(low, zero.to(x.dtype), PHASE, BITS)",
         "            weights = _weights((low >> PHASE * LOW) & 15, table, scale, zero, BITS, "
         "ZERO_KIND, SCALED).to(x.dtype)", "of the hot loop for each MMA must be at most 24, got"),
        (1, "num_stages=cut.stages", "num_stages=9", "static shared memory must be at most"),
        (2, "maxnreg=tiles.most_registers(cut, scaled and table is None)", "maxnreg=None",
         "registers must be at most 128, got"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_linear_is_told(group, right, wrong, sentence, tmp_path):
    limits = LIMITS[group]
    with mistaken(Mistake(LINEAR.entries[0].source, sentence, right, wrong), tmp_path):
        text = verdict(limits.entries, limits.calls[0], "80")
    assert sentence in text


def test_stored_e4m3_would_not_compile_everywhere(tmp_path):
    right = "scales.view(torch.uint8) if encoding else scales"
    mistake = Mistake(DEQUANTIZE.entries[0].source, "e4m3 as such", right, "scales")
    with mistaken(mistake, tmp_path), pytest.raises(CompilationError, match="fp8e4nv"):
        launch(OF_BYTES, "80")
