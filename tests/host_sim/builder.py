"""The check programs, and the libraries for torch, of the CUDA texts on the host model."""

import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests import torch_files
from tests.build_cache import CSRC, EXAMPLES
from tests.host_sim.compiler import FLAVOURS, compile_sources

HERE = Path(__file__).resolve().parent
PROGRAMS = (
    "check_vector_scale",
    "check_tiled_gemm",
    "check_tiled_gemm_sm90",
    "check_dequantize_weight",
    "check_weight_only_linear",
    "check_prepack_weight",
    "check_model",
)
_LIBRARY_FLAGS = (
    *FLAVOURS["plain"],
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",  # libraries in one process have a model each
    torch_files.TARGET,
    "-isystem",
    str(torch_files.INCLUDE),
)
_LINK = (f"-L{torch_files.LIBRARIES}", "-Wl,--no-as-needed", "-ltorch")


def build_library() -> Path:
    """The shared library that registers every CUDA text as `<op>__cuda_model` on CPU tensors."""
    kernels = sorted((CSRC / "cuda").glob("*.cu"))
    sources = [*kernels, CSRC / "registration_cuda.cpp", HERE / "model_control.cpp"]
    return compile_sources("cuda_model.so", sources, [CSRC], _LIBRARY_FLAGS, _LINK)


def build_examples(examples: Path = EXAMPLES) -> Path:
    """The shared library that registers the examples in this folder on CPU tensors."""
    sources = [*sorted(examples.glob("*.cu")), examples / "registration.cpp"]
    return compile_sources("cuda_examples.so", sources, [CSRC, examples], _LIBRARY_FLAGS, _LINK)


def build_program(
    name: str, flavour: str, csrc: Path = CSRC, defines: tuple[str, ...] = (), examples=EXAMPLES
) -> Path:
    """A program without torch: tests/host_sim/<name>.cpp over the texts in these folders."""
    flags = (*FLAVOURS[flavour], *defines)
    return compile_sources(name, [HERE / f"{name}.cpp"], [csrc, examples], flags)


def build_ahead() -> None:
    """Starts to build everything beside the tests: compiling takes longer than running."""
    wanted = [build_library, build_examples]
    wanted += [functools.partial(build_program, *each) for each in product(PROGRAMS, FLAVOURS)]
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build_ahead")
    for build in wanted:
        pool.submit(build)  # what fails here fails again in the test that needs it
    pool.shutdown(wait=False)
