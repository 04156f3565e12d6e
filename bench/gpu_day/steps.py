"""The steps of a GPU day as data. Their order: facts first, figures last, each on its own.

In commands, {python} is the interpreter, {out} the folder of the results, {lib} that of the built
package, {commit} the commit.
"""

from __future__ import annotations

import dataclasses

# Seconds for all of them together, and how many files they and the summary may leave.
LIMIT, MOST_FILES = 590, 8
SUMMARY = "summary.md"
# The exit status of a step that this machine does not support, as automake's tests have it.
UNSUPPORTED = 77


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and how long it may take.

    small: the same without a GPU, for --dry-run. output: the file that it leaves; with `prints`
    that is what it prints. modules, files, programs: what must be there; a machine without a GPU
    may lack the programs.
    """

    name: str
    command: tuple[str, ...]
    small: tuple[str, ...]
    limit: int
    output: str = ""
    prints: bool = False
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


def _python(*words: str) -> tuple[str, ...]:
    return ("{python}", "-m", *words)


def _words(text: str) -> tuple[str, ...]:
    return _python(*text.split())


ENVIRONMENT = Step(
    "environment",
    _words("bench.gpu_day.environment {out}/environment.json --commit {commit}"),
    _words("bench.gpu_day.environment {out}/environment.json --commit {commit} --without-gpu"),
    20,
    "environment.json",
    modules=("bench.gpu_day.environment", "torch"),
    programs=("nvidia-smi",),
)
BUILD = Step(
    "build",
    _words("bench.gpu_day.build {lib}"),
    _words("bench.gpu_day.build {lib} --python-only"),
    130,
    modules=("bench.gpu_day.build", "setuptools", "torch"),
    files=("setup.py", "_native_build.py", "csrc/cuda/launch.cuh"),
    programs=("nvcc", "g++"),
)
CONFORMANCE = Step(
    "wrapper conformance",
    _words("tests.conformance --device"),
    _words("tests.conformance --help"),
    80,
    "conformance.txt",
    prints=True,
    modules=("tests.conformance",),
    programs=("nvcc",),
)
CHECK = Step(
    "every case",
    _words("lowbit check --backend cuda"),
    _words("lowbit check dequantize_weight --backend reference --case uint1-"),
    60,
    modules=("lowbit.bench.sweep",),
)
PYTEST = Step(
    "pytest -m gpu",
    _words("pytest -q -m gpu tests/gpu -p no:cacheprovider --junitxml={out}/pytest_gpu.xml"),
    _words("pytest -q -m gpu tests/gpu -p no:cacheprovider --collect-only"),
    90,
    "pytest_gpu.xml",
    modules=("pytest",),
    files=("tests/gpu", "tests/conftest.py"),
)
SANITIZER = Step(
    "compute-sanitizer",
    _words("bench.gpu_day.sanitizer"),
    _words("bench.gpu_day.launches --backends reference"),
    90,
    "sanitizer.txt",
    prints=True,
    modules=("bench.gpu_day.sanitizer", "bench.gpu_day.launches"),
    files=("bench/gpu_day/planted.cu",),
    programs=("nvcc",),
)


def _bench(op: str, shapes: str, small: str, limit: int) -> Step:
    """`lowbit bench` of an op whose CUDA kernel must be among the rows that have figures."""
    common = f"bench.gpu_day.measure {{out}}/bench_{op}.json {op}"
    return Step(
        f"bench {op}",
        _words(f"{common} --must cuda --device cuda {shapes}"),
        _words(f"{common} --must reference --device cpu --quick --min-time 1e-3 {small}"),
        limit,
        f"bench_{op}.json",
        modules=("bench.gpu_day.measure", "lowbit.bench.runner"),
    )


BENCHES = (
    _bench(
        "dequantize_weight",
        "--dtype bf16 --bits 2,4,8 --shapes N=4096;K=4096,14336",
        "--dtype bf16 --shapes N=64;K=128 --backends reference,torch_copy",
        100,
    ),
)
STEPS = (ENVIRONMENT, BUILD, CONFORMANCE, CHECK, PYTEST, SANITIZER, *BENCHES)
