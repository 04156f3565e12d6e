"""What every test shares: where ops can run here, the layouts, the strict mode."""

import warnings

import pytest
import torch

from lowbit import registry
from lowbit.nn import weight_module
from tests import ahead, rotation
from tests.runners import CPU_LIBRARY_MISSING, RUNNERS, running_on


def pytest_addoption(parser):
    described = "of the slow tests that take turns run one in N, others with each commit"
    parser.addoption("--share", type=int, default=1, metavar="N", help=described)


@pytest.hookimpl(trylast=True)  # of what -m and -k select
def pytest_collection_modifyitems(config, items):
    if left_out := rotation.left_out(items, config.option.share):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish(session):
    if not session.config.option.collectonly:
        ahead.begin(session.items)


def pytest_sessionfinish():
    ahead.stop()


@pytest.fixture(params=RUNNERS)
def runner(request):
    """Runs the test once on every runner; gives the backend's name."""
    with running_on(request.param) as backend:
        yield backend


@pytest.fixture(params=[pytest.param(r, id=r) for r in RUNNERS if r.startswith("cpu")])
def native_runner(request):
    """Runs the test once on every instruction set of the CPU library."""
    with running_on(request.param) as backend:
        yield backend


@pytest.fixture(autouse=True)
def _slow_path_is_expected_without_cpu_library(monkeypatch):
    """A build without native kernels has only the reference: neither strict nor a warning then."""
    if not CPU_LIBRARY_MISSING:
        yield
        return
    monkeypatch.delenv("LOWBIT_STRICT", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", registry.SlowPathWarning)
        yield


@pytest.fixture(params=["canonical", "panels"])
def layout(request, monkeypatch):
    """Runs the test once with the kernels of the CPU reading each layout fastest."""

    def fastest_layout(device, weight):
        return request.param if device.type == "cpu" else "canonical"

    monkeypatch.setattr(weight_module, "fastest_layout", fastest_layout)


@pytest.fixture
def threads():
    """A function that sets torch's thread count; the count is restored after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
