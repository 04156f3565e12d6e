"""Every wrapper on a CUDA device against the host model."""

import pytest

from tests.conformance.device import check_device, device_arch, is_wrong
from tests.conformance.outputs import recorded

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def verdicts():
    arch = device_arch()
    assert arch is not None, "nvidia-smi must name a GPU"
    return check_device(arch)


@pytest.mark.parametrize("case", recorded())
def test_case(verdicts, case):
    if verdicts[case].startswith("skipped"):
        pytest.skip(f"{case}: the device lacks its instructions")
    assert not is_wrong(verdicts[case]), verdicts[case]
