"""Backend `cuda_model` for lowbit.use_backend("cuda_model"), built from this checkout."""

from lowbit.bench import cuda_model
from tests.host_sim.builder import build_library


def load() -> cuda_model.Model:
    """Registers the backend once; its controls."""
    return cuda_model.load(build_library())
