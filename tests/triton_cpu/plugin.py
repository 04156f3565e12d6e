"""Of the runs that tests/test_triton.py starts (pytest -p): the interpreter as a fixture."""

from unittest import mock

import pytest


@pytest.fixture(scope="module")
def interpreted():
    """Triton kernels run on CPU tensors, corrected and guarded; gives the backend's name."""
    from lowbit.triton_kernels import tiles
    from tests.triton_cpu import backend
    from tests.triton_cpu.canaries import guarded
    from tests.triton_cpu.interpreter import corrections

    backend.load()
    # One multiprocessor, so that few programs are enough for it.
    kind = mock.patch.object(tiles, "device_kind", lambda tensor: tiles.Device(90, 1))
    with corrections(), guarded(), kind:
        yield backend.NAME
