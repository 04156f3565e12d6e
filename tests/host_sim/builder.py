"""The check programs, and the libraries for torch, of the CUDA texts on the host model."""

from pathlib import Path

from tests import torch_files
from tests.build_cache import CSRC, EXAMPLES
from tests.host_sim.compiler import FLAVOURS, compile_sources

HERE = Path(__file__).resolve().parent
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
