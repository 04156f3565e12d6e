"""The facts from binaries and their checks: each check fails on a kernel with one mistake."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.build_cache import CompileError
from tests.facts.cubins import Compilation, find_nvcc
from tests.facts.gpus import GPUS, Work, predict
from tests.facts.limits import Entry
from tests.facts.loops import Instruction, hot_loop
from tests.facts.occupancy import MULTIPROCESSORS, occupancy
from tests.facts.sass import kernel_facts, missing_tools, read_code, short_name
from tests.facts.verdict import failures

HERE = Path(__file__).parent / "facts"
needs_tools = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))
needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")


# ---- limits, on kernels with one mistake each ----

SEEDED = Entry(
    source="seeded",
    kernel="keeps_all",
    instances=1,
    threads=256,
    registers=64,
    blocks=4,
    requires=("LDG.128", "STG.128"),
    forbids=("MUFU",),
    archs=("80",),
    work=Work("none", bytes=1.0, operations={}),
)
MULTIPLIES = dataclasses.replace(SEEDED, requires=("HMMA",), per_mma=20.0)


@pytest.fixture(scope="module")
def seeded():
    if missing := missing_tools():
        pytest.skip(missing)
    return kernel_facts(Compilation(HERE / "seeded.cu", "80").made())


def verdict(seeded, kernel: str, entry: Entry = SEEDED, arch: str = "80") -> str:
    entry = dataclasses.replace(entry, kernel=kernel)
    return "\n".join(failures(arch, [seeded[kernel]], [entry]))


def test_a_kernel_that_keeps_its_limits(seeded):
    assert verdict(seeded, "keeps_all") == ""
    assert verdict(seeded, "multiplies<1>", MULTIPLIES) == ""


@pytest.mark.parametrize(
    "kernel, sentence",
    {
        "narrow_stores": "STG.128 is required, got none",
        "spills": "spill stores must be at most 0, got",
        "many_registers": "registers must be at most 64, got 128",
        "stack_frame": "bytes of stack must be at most 0, got 256",
        "divides": "MUFU is forbidden, got some",
        "static_shared": "bytes of static shared memory must be at most 0, got 32768",
    }.items(),
)
def test_a_mistake_is_told(seeded, kernel, sentence):
    text = verdict(seeded, kernel)
    assert sentence in text
    assert f"| {kernel} | 1 | 80 |" in text and "limits of" in text


def test_spill_loads_are_told(seeded):
    assert "spill loads must be at most 0, got" in verdict(seeded, "spills")


def test_few_blocks_are_told(seeded):
    text = verdict(seeded, "static_shared")
    assert "blocks of a multiprocessor must be at least 4" not in text
    crowded = dataclasses.replace(SEEDED, dynamic_shared=16384)
    text = verdict(seeded, "static_shared", crowded)
    assert "blocks of a multiprocessor must be at least 4, got 3 by shared" in text


def test_many_instructions_for_an_mma_are_told(seeded):
    text = verdict(seeded, "multiplies<40>", MULTIPLIES)
    assert "instructions of the hot loop for each MMA must be at most 20, got 70" in text
    assert "the hot loop must have an MMA" in verdict(seeded, "keeps_all", MULTIPLIES)


def test_kernels_and_limits_belong_together(seeded):
    both = [seeded["multiplies<1>"], seeded["multiplies<40>"]]
    entry = dataclasses.replace(SEEDED, requires=(), kernel="multiplies<*>", instances=2)
    assert failures("80", both, [entry]) == []
    assert failures("80", both[:1], [entry]) == [
        "multiplies<*> on sm_80 must have 2 instances, got 1"
    ]
    assert "must have limits in tests/facts/limits.py" in failures("80", both, [])[0]


def test_other_architectures_have_an_empty_kernel_at_most(seeded):
    hopper = dataclasses.replace(SEEDED, archs=("90a",))
    assert verdict(seeded, "stub", hopper) == ""
    assert "must do nothing there" in verdict(seeded, "keeps_all", hopper)


# ---- compiling ----


@needs_nvcc
def test_held_up_wgmma_is_an_error():
    for _ in range(2):  # also when the cubin comes from the cache
        with pytest.raises(CompileError, match="ptxas holds wgmma up(.|\n)*C75"):
            Compilation(HERE / "seeded_wgmma.cu", "90a").made()


@needs_nvcc
def test_an_error_of_nvcc_is_told_whole(tmp_path):
    (tmp_path / "wrong.cu").write_text("__global__ void k() { first(); }\nint x = second;\n")
    with pytest.raises(CompileError, match=r'nvcc .*wrong\.cu(.|\n)*"first"(.|\n)*"second"'):
        Compilation(tmp_path / "wrong.cu", "80", folder=tmp_path / "made").made()
    assert list((tmp_path / "made").iterdir()) == []


@needs_nvcc
def test_a_cubin_is_compiled_once_for_its_inputs(tmp_path):
    (tmp_path / "kernel.cu").write_text('#include "deep/a.cuh"\n__global__ void k(int* p) { A }\n')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.cuh").write_text(
        "#ifdef B\n#include <deep/b.cuh>\n#endif\n#define A *p = 1;"
    )
    (tmp_path / "deep/b.cuh").write_text("")
    (tmp_path / "deep/other.cuh").write_text("")
    compilation = Compilation(tmp_path / "kernel.cu", "80", (tmp_path,), folder=tmp_path / "made")
    first, nvcc = compilation.made(), find_nvcc()
    made = first.stat().st_ino
    (tmp_path / "deep/other.cuh").write_text("// not included")
    assert compilation.made().stat().st_ino == made
    assert dataclasses.replace(compilation, flags=("-O1",)).key(nvcc) != compilation.key(nvcc)
    before = compilation.key(nvcc)
    (tmp_path / "deep/b.cuh").write_text("// included by what is included, on some condition")
    assert compilation.key(nvcc) != before
    assert compilation.made() != first


# ---- reading ----


@pytest.mark.parametrize(
    "demangled, short",
    {
        "mm": "mm",
        "void a::b::f<4, (a::E)2>(a::P, int (*)(int))": "f<4, 2>",
        "(anonymous namespace)::f(float*)": "f",
        "void f<a::T<(bool)1>, -1>(a::T<true>)": "f<T<1>, -1>",
    }.items(),
)
def test_short_names(demangled, short):
    assert short_name(demangled) == short


def test_a_line_that_cannot_be_read_is_an_error():
    line = "        /*0010*/                   {} ;  /* 0x0000000000057919 */\n"
    assert read_code(line.format("EXIT").replace("0010", "0000"))[0].opcode == "EXIT"
    with pytest.raises(ValueError, match="must have an instruction at 0x0, got 0x10"):
        read_code(line.format("EXIT"))


@needs_tools
def test_a_cubin_in_memory(seeded):
    cubin = Compilation(HERE / "seeded.cu", "80").made()
    assert kernel_facts(cubin.read_bytes()) == seeded


def code(*lines: str) -> list[Instruction]:
    """From `[@guard] opcode operands`; addresses count up by 0x10."""
    made = []
    for i, line in enumerate(lines):
        guard, _, rest = line.partition(" ") if line[0] == "@" else ("", "", line)
        opcode, _, operands = rest.partition(" ")
        made.append(Instruction(16 * i, guard, opcode, operands))
    return made


def test_the_hot_loop_is_the_innermost_with_most_mma():
    loop = hot_loop(
        code(
            "S2R R0",  # 0x00
            "HMMA.16816.F32 R0",  # 0x10: tiles
            "HMMA.16816.F32 R0",
            "HMMA.16816.F32 R0",  # 0x30: over K
            "SYNCS.PHASECHK P0",  # 0x40: waits
            "@!P0 BRA 0x90",  # to the slow path behind the end
            "HMMA.16816.F32 R0",
            "BRA.U UP0, 0x30",
            "BRA 0xb0",
            "NANOSLEEP 0x1",  # 0x90
            "BRA 0x40",
            "HMMA.16816.F32 R0",  # 0xb0
            "@P1 BRA 0x10",
            "EXIT",
            "BRA 0xe0",
        )
    )
    assert (loop.begin, loop.instructions, loop.mma) == (0x30, 7, 2)
    assert loop.mix["NANOSLEEP"] == 1 and loop.per_mma == 3.5


def test_the_hot_loop_without_mma_is_the_one_with_most_loads():
    loop = hot_loop(
        code(
            "LDG.E R0",
            "@P0 BRA 0x0",
            "BSSY B0, 0x70",
            "LDG.E.128 R0",  # 0x30
            "BRX R2 -0x10",
            "LDG.E R1",  # 0x50: where the indirect branch goes
            "BSYNC B0",
            "@!P0 BRA 0x30",
            "EXIT",
        )
    )
    assert (loop.begin, loop.instructions, loop.mma) == (0x30, 5, 0)
    assert hot_loop(code("LDG.E R0", "EXIT", "BRA 0x20")) is None


def test_facts_of_loops_in_binaries(seeded):
    """Tiles around K around a wait: two MMA in the loop over K, one behind it."""
    assert seeded["multiplies<1>"].loop.mma == seeded["multiplies<40>"].loop.mma == 2
    assert seeded["keeps_all"].loop.mix["LDG"] == 1
    assert seeded["divides"].loop is None


@needs_tools
@pytest.mark.parametrize("arch", ["90a", "120a"])
def test_resources_on_newer_architectures(arch):
    """The reserved KiB of shared memory is left out, hints behind the operands are not read."""
    facts = kernel_facts(Compilation(HERE / "seeded.cu", arch).made())
    assert facts["static_shared"].shared == 32768
    assert facts["keeps_all"].shared == 0
    assert facts["multiplies<1>"].loop.mma == 2
    assert facts["multiplies<1>"].capability == int(arch[:-1])


# ---- occupancy and time ----

HEADER = "include/cuda_occupancy.h"
LIMIT_BITS = {"warps": 1, "registers": 2, "shared": 4, "blocks": 8}  # cudaOccLimitingFactor
OCCUPANCY_CASES = [
    (capability, registers, threads, shared)
    for capability in MULTIPROCESSORS
    for registers in (*range(1, 256, 6), 255, 256)
    for threads in (1, 32, 33, 96, 128, 160, 256, 384, 512, 768, 1000, 1024)
    for shared in (0, 1, 1024, 4000, 8192, 24576, 33000, 65536, 101376, 101377, 166912, 232448)
]


def test_occupancy_is_that_of_the_toolkit(tmp_path):
    homes = [Path("/usr/local/cuda")]
    homes += [nvcc.resolve().parents[1]] if (nvcc := find_nvcc()) else []
    include = next((home / "include" for home in homes if (home / HEADER).is_file()), None)
    if include is None or shutil.which("g++") is None:
        pytest.skip("g++ or cuda_occupancy.h of the CUDA toolkit is not installed")
    program = tmp_path / "occupancy"
    subprocess.run(
        ["g++", "-std=c++20", f"-I{include}", HERE / "occupancy.cpp", "-o", program], check=True
    )
    lines = []
    for capability, *block in OCCUPANCY_CASES:
        sm = MULTIPROCESSORS[capability]
        lines.append(" ".join(map(str, (capability, sm.threads, sm.shared, *block))))
    answers = subprocess.run(
        [program], input="\n".join(lines), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for case, answer in zip(OCCUPANCY_CASES, answers, strict=True):
        blocks, limits = map(int, answer.split())
        ours = occupancy(*case)
        bits = sum(LIMIT_BITS[limit] for limit in ours.limits)
        assert (ours.blocks, bits) == (blocks, limits & 15), case


def test_predicted_times():
    """By hand: 4.8 GB take 1 ms of an H200's memory, 989.4 G multiply-adds 2 ms of its units."""
    h200 = next(gpu for gpu in GPUS if gpu.name == "H200")
    assert predict(Work("", 4.8e9, {"f16": 1e9}), h200).bound == "memory"
    assert predict(Work("", 4.8e9, {"f16": 1e9}), h200).microseconds == pytest.approx(1000)
    assert predict(Work("", 4.8e9, {"f16": 2 * 989.4e9}), h200).microseconds == pytest.approx(2000)
    instructions = predict(Work("", 0, {"instructions": 4 * 132 * 1.83e9}), h200)
    assert (instructions.microseconds, instructions.bound) == (pytest.approx(1e6), "instructions")
    assert predict(Work("", 1.0, {"e4m3": 1.0}), GPUS[0]) is None


def test_rates_are_those_of_the_units():
    """Data sheets against multiprocessors, clock and what a multiprocessor does at each clock."""
    a_clock = {"A100": 2048, "L40S": 1024, "RTX 4090": 512, "H100": 4096, "H200": 4096,
               "B200": 8192, "RTX 5090": 512}  # fmt: skip
    for gpu in GPUS:
        peak = gpu.multiprocessors * gpu.clock * a_clock[gpu.name]
        assert gpu.rates["f16"] == pytest.approx(peak, rel=0.02), gpu
