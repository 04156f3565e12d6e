"""Of the runs that tests/test_triton.py starts (pytest -p): the interpreter as a fixture."""

import pytest


@pytest.fixture(scope="module")
def interpreted():
    """Triton kernels run on CPU tensors, corrected and guarded; gives the backend's name."""
    from tests.triton_cpu import backend

    with backend.interpreting():
        yield backend.NAME
