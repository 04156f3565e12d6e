"""The float32 product of the reference, whatever precision torch's settings allow."""

import pytest
import torch

from lowbit.formats.numerics import matmul_float32


@pytest.fixture
def restored_precision():
    """torch's matmul precision as it was, also after a test has mixed the two ways to set it."""
    yield
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


def _legacy():
    torch.set_float32_matmul_precision("medium")


def _mkldnn():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def _cuda():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize("lower", [_legacy, _mkldnn, _cuda])
def test_matmul_float32_keeps_its_precision(lower, restored_precision):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=generator) for _ in range(2))
    lower()
    exact = a.double() @ b.double()
    assert (matmul_float32(a, b) - exact).abs().max() < 1e-4
