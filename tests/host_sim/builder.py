"""Builds the CUDA texts for the host model with g++; cached by the content of all inputs."""

import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
EXAMPLES = ROOT / "examples" / "cuda"
CACHE = ROOT / "build" / "host_sim"
TORCH = Path(torch.__file__).parent
_locks: dict[Path, threading.Lock] = defaultdict(threading.Lock)

_COMMON = (
    "-std=c++20",
    "-Wall",
    "-Werror",
    "-Wno-psabi",  # of parameters aligned to 64 bytes, since GCC 4.6
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-DLOWBIT_HOST_MODEL",
)
# Three builds for three kinds of mistakes: wrong values under many schedules; accesses out of
# bounds or misaligned; accesses that nothing orders.
PROGRAMS = (
    "check_vector_scale",
    "check_tiled_gemm",
    "check_tiled_gemm_sm90",
    "check_dequantize_weight",
    "check_model",
)
FLAVOURS = {
    "plain": ("-O2",),
    "asan": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-O1", "-g", "-fsanitize=thread"),
}
_TORCH_FLAGS = (
    "-shared",
    "-fPIC",
    "-DTORCH_TARGET_VERSION=0x020b000000000000",
    "-isystem",
    str(TORCH / "include"),
    f"-L{TORCH / 'lib'}",
    "-Wl,--no-as-needed",
    "-ltorch",
)


def build_library() -> Path:
    """The shared library that registers every CUDA text as `<op>__cuda_model` on CPU tensors."""
    kernels = sorted((CSRC / "cuda").glob("*.cu"))
    sources = [*kernels, CSRC / "registration_cuda.cpp", HERE / "model_control.cpp"]
    return _build("cuda_model.so", sources, (CSRC,), FLAVOURS["plain"], _TORCH_FLAGS)


def build_examples() -> Path:
    """The shared library that registers examples/cuda on CPU tensors."""
    sources = [*sorted(EXAMPLES.glob("*.cu")), EXAMPLES / "registration.cpp"]
    folders = (CSRC, EXAMPLES)
    return _build("cuda_examples.so", sources, folders, FLAVOURS["plain"], _TORCH_FLAGS)


def build_program(
    name: str, flavour: str, csrc: Path = CSRC, defines: tuple[str, ...] = (), examples=EXAMPLES
) -> Path:
    """A program without torch: tests/host_sim/<name>.cpp over the texts in these folders."""
    flags = (*FLAVOURS[flavour], *defines)
    return _build(name, [HERE / f"{name}.cpp"], (csrc, examples), flags, ())


def build_ahead() -> None:
    """Starts to build everything beside the tests: compiling takes longer than running."""
    wanted = [build_library, build_examples]
    wanted += [functools.partial(build_program, *each) for each in product(PROGRAMS, FLAVOURS)]
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build_ahead")
    for build in wanted:
        pool.submit(build)  # what fails here fails again in the test that needs it
    pool.shutdown(wait=False)


def _build(name: str, sources: list[Path], folders: tuple[Path, ...], flags, link) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler found")
    folder = CACHE / _key(compiler, sources, folders, flags, link)
    program = folder / name
    with _locks[program]:
        if not program.is_file():
            include = [f"-I{each}" for each in folders]
            _compile([compiler, *_COMMON, *flags, *include], sources, link, program)
    return program


def _compile(command: list[str], sources: list[Path], link, program: Path) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    # Sources follow "-x c++": the compiler does not know the suffix .cu.
    files = ["-x", "c++", *map(str, sources), "-x", "none"]
    command = [*command, *files, "-o", str(unfinished), *link]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unfinished.replace(program)


def _key(compiler: str, sources: list[Path], folders: tuple[Path, ...], flags, link) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    state = hashlib.sha256(repr((version, torch.__version__, _COMMON, flags, link)).encode())
    own = sorted(HERE.rglob("*.h"))
    for path in [*sources, *own, *(h for folder in folders for h in _headers(folder))]:
        state.update(path.name.encode())
        state.update(path.read_bytes())
    return state.hexdigest()[:20]


def _headers(folder: Path) -> list[Path]:
    deep = (folder / "cuda").rglob("*")
    return sorted(path for path in (*folder.glob("*"), *deep) if path.suffix in (".h", ".cuh"))
