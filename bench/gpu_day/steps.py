"""The steps of a GPU day as data. Their order: what matters most comes first, should time run out.

In commands, {python} is the interpreter, {out} the folder of the results, {lib} that of the built
package, {commit} the commit. Which kernels there are stands nowhere here: kernels.py asks the
registry and the examples.

Limits of what compiles: with two cores of a Xeon the longest source of the package takes 42 s
(csrc/cpu/linear_int8x2.cpp; the longest CUDA source 9 s), the longest test program 14 s, a Triton
kernel 0.2 s. On 16 cores these are what must be waited for. The limits are 2.5 times as much, for
cores that are all busy and a file system in a sandbox.
"""

from __future__ import annotations

import dataclasses

# Seconds for all of them together, and how many files they and the summary may leave.
LIMIT, MOST_FILES = 565, 8
# What a step that is out of time gets to write what it has.
GRACE = 3
SUMMARY = "summary.md"
# The exit status of a step that this machine does not support, as automake's tests have it.
UNSUPPORTED = 77


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and how long it may take.

    small: the same without a GPU, for --dry-run. shows: what a small one that passed has shown.
    output: the file that it leaves; with `prints` that is what it prints. modules, files, programs:
    what must be there; a machine without a GPU may lack the programs.
    """

    name: str
    command: tuple[str, ...]
    small: tuple[str, ...]
    shows: str
    limit: float
    output: str = ""
    prints: bool = False
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


def _words(text: str) -> tuple[str, ...]:
    return ("{python}", "-m", *text.split())


ENVIRONMENT = Step(
    "environment",
    _words("bench.gpu_day.environment {out}/environment.json --commit {commit}"),
    _words("bench.gpu_day.environment {out}/environment.json --commit {commit} --without-gpu"),
    "facts of this machine written, no GPU asked",
    20,
    "environment.json",
    modules=("bench.gpu_day.environment", "torch"),
    programs=("nvidia-smi",),
)
PROGRAMS = Step(
    "test programs",
    _words("bench.gpu_day.programs"),
    _words("bench.gpu_day.programs"),
    "built, not run",
    40,
    modules=("bench.gpu_day.programs", "tests.conformance.build", "tests.cuda_build"),
    programs=("nvcc", "g++"),
)
CONFORMANCE = Step(
    "wrapper conformance",
    _words("tests.conformance --device"),
    _words("tests.conformance --help"),
    "it starts, nothing compared",
    35,
    "conformance.txt",
    prints=True,
    modules=("tests.conformance",),
    programs=("nvcc",),
)
BUILD = Step(
    "build",
    _words("bench.gpu_day.build {lib}"),
    _words("bench.gpu_day.build {lib} --python-only"),
    "Python files laid out, nothing compiled",
    105,
    modules=("bench.gpu_day.build", "setuptools", "torch"),
    files=("setup.py", "_native_build.py", "csrc/cuda/launch.cuh"),
    programs=("nvcc", "g++"),
)
PYTEST = Step(
    "pytest -m gpu",
    _words("pytest -q -m gpu tests/gpu -p no:cacheprovider --junitxml={out}/pytest_gpu.xml"),
    _words("pytest -q -m gpu tests/gpu -p no:cacheprovider --collect-only"),
    "collected, not run",
    95,
    "pytest_gpu.xml",
    modules=("pytest",),
    files=("tests/gpu", "tests/conftest.py"),
)
CASES = Step(
    "every case",
    _words("bench.gpu_day.every_case"),
    _words("bench.gpu_day.every_case --backends reference --case uint1-"),
    "some cases on the reference kernels, no GPU kernel run",
    65,
    modules=("bench.gpu_day.every_case", "lowbit.bench.sweep"),
)
BENCH = Step(
    "bench",
    _words("bench.gpu_day.measure {out}"),
    _words("bench.gpu_day.measure {out} --small"),
    "the reference and torch timed on the CPU, no GPU kernel timed",
    80,
    modules=("bench.gpu_day.measure", "lowbit.bench.runner"),
)
EXAMPLES = Step(
    "bench examples",
    _words("bench.gpu_day.measure_examples"),
    _words("bench.gpu_day.measure_examples --small"),
    "torch timed in the place of the kernels, on the CPU",
    25,
    modules=("bench.gpu_day.measure_examples", "lowbit.bench.sampling"),
)
SANITIZER = Step(
    "compute-sanitizer",
    _words("bench.gpu_day.sanitizer"),
    _words("bench.gpu_day.launches --small"),
    "the calls made with the reference and torch, no sanitizer run",
    70,
    "sanitizer.txt",
    prints=True,
    modules=("bench.gpu_day.sanitizer", "bench.gpu_day.launches"),
    files=("bench/gpu_day/planted.cu",),
    programs=("nvcc",),
)

FIGURES = (BENCH, EXAMPLES)
STEPS = (ENVIRONMENT, PROGRAMS, CONFORMANCE, BUILD, PYTEST, CASES, *FIGURES, SANITIZER)
