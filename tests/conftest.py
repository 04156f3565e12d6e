"""What every test shares: where ops can run here, the hypothesis profiles, the strict mode."""

import contextlib
import os
import warnings

import hypothesis
import pytest
import torch

from lowbit import native, registry

hypothesis.settings.register_profile(
    "local", deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

CPU = torch.device("cpu")
CPU_LIBRARY_MISSING = registry.BACKENDS["cpu"].missing(CPU)


def _instruction_sets() -> list[str]:
    """The instruction sets that the CPU library runs on this machine."""
    runnable = []
    for isa in () if CPU_LIBRARY_MISSING else native.ISAS:
        with contextlib.suppress(RuntimeError), native.use_isa(isa):
            runnable.append(isa)
    return runnable


# Every place on this machine where a kernel can run: "reference", "cpu-scalar", "cpu-avx2", ...
RUNNERS = ("reference", *(f"cpu-{isa}" for isa in _instruction_sets()))


@contextlib.contextmanager
def running_on(runner: str):
    """Forces the runner in this thread."""
    backend, _, isa = runner.partition("-")
    with registry.use_backend(backend), native.use_isa(isa) if isa else contextlib.nullcontext():
        yield backend


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


@pytest.fixture
def threads():
    """A function that sets torch's thread count; the count is restored after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
