"""The chooser, use_backend, explain and the strict mode, on ops made for the test."""

import threading
import warnings
from typing import NamedTuple
from unittest import mock

import pytest
import torch

import lowbit
from lowbit import SlowPathWarning, registry, use_backend
from lowbit.registry import Backend, Kernel

CPU = torch.device("cpu")
_names = iter(range(1000))


class Problem(NamedTuple):
    device: torch.device
    dtype: torch.dtype


@pytest.fixture
def backends():
    """A fast and a slow test backend on the CPU; `missing` says why each cannot run."""
    missing = {}
    with mock.patch.dict(registry.BACKENDS):
        for name, rank in (("slow", 30), ("fast", 40), ("shy", -1)):
            registry.add_backend(Backend(name, "cpu", rank, lambda device, n=name: missing.get(n)))
        registry.add_backend(Backend("elsewhere", "cuda", 50, lambda device: None))
        yield missing


@pytest.fixture
def op(monkeypatch):
    """An op that returns the number of the backend that ran, and x's first element is not read."""
    monkeypatch.setattr(registry, "OPS", dict(registry.OPS))
    name = f"probe{next(_names)}"
    return registry.Op(
        name,
        "Tensor x",
        check=lambda x: None,
        allocate=lambda x: x.new_empty(()),
        reference=lambda x, out: out.fill_(0),
        problem=lambda x: Problem(x.device, x.dtype),
        flatten=lambda x: (x,),
    )


def add_kernel(op, backend, number, **covers):
    op.add_kernel(Kernel(backend, covers, "test"))

    def kernel(x, out):
        out.fill_(number)

    registry.LIBRARY.impl(f"{op.name}__{backend}", kernel, "CompositeExplicitAutograd")


def ran(op, dtype=torch.float32) -> int:
    return int(op.overload(torch.ones(2, dtype=dtype)).item())


X = torch.ones(2)


def test_highest_rank_runs(op, backends):
    assert ran(op) == 0
    add_kernel(op, "slow", 1)
    assert ran(op) == 1
    add_kernel(op, "fast", 2)
    assert ran(op) == 2


def test_a_row_declines_what_it_does_not_cover(op, backends):
    add_kernel(op, "slow", 1)
    add_kernel(op, "fast", 2, dtype=(torch.float16,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowPathWarning)
        assert ran(op, torch.float16) == 2
        assert ran(op, torch.float32) == 1


@pytest.fixture(autouse=True)
def not_strict(monkeypatch):
    monkeypatch.delenv("LOWBIT_STRICT", raising=False)


def test_kernels_of_other_devices_and_negative_ranks_are_passed_over_silently(op, backends):
    add_kernel(op, "elsewhere", 9)
    add_kernel(op, "shy", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ran(op) == 0
    with use_backend("shy"):
        assert ran(op) == 8


def test_explain_gives_the_choice_and_every_reason(op, backends):
    add_kernel(op, "slow", 1)
    add_kernel(op, "fast", 2, dtype=(torch.float16, torch.bfloat16))
    add_kernel(op, "elsewhere", 3)
    add_kernel(op, "shy", 4)
    choice = lowbit.explain(op.name, X)
    assert choice.backend == "slow"
    assert choice.passed_over == {
        "elsewhere": "it runs on cuda, not on cpu",
        "fast": "dtype float32 is not among bfloat16, float16",
        "reference": "slow is preferred",
        "shy": "it runs only under use_backend('shy')",
    }
    assert choice.slower_because == (
        "no fast kernel, because dtype float32 is not among bfloat16, float16"
    )
    assert str(choice).splitlines()[:2] == [
        f"{op.name}(device=cpu, dtype=float32)",
        "  runs on: slow",
    ]
    with use_backend("fast"):
        forced = lowbit.explain(op.name, X)
    assert forced.backend is None
    assert forced.passed_over["slow"] == "use_backend('fast') is in force"


def test_a_missing_library_is_the_reason(op, backends):
    add_kernel(op, "fast", 2)
    backends["fast"] = "it was not built; build it"
    assert lowbit.explain(op.name, X).passed_over["fast"] == "it was not built; build it"
    with pytest.warns(SlowPathWarning, match="it was not built; build it"):
        assert ran(op) == 0
    backends.clear()
    assert ran(op) == 2  # slow choices are not remembered


def test_explain_of_real_ops():
    weight = lowbit.quantize_weight(torch.randn(4, 32))
    choice = lowbit.explain("weight_only_linear", torch.randn(2, 32), weight)
    assert choice.problem.element == "uint4" and choice.problem.mode == "int8x2"
    assert "  runs on: " in str(choice)
    with pytest.raises(ValueError, match=r"explain: op must be one of .*, got 'nothing'"):
        lowbit.explain("nothing")


def test_slow_paths_warn_once_for_each_reason(op, backends):
    add_kernel(op, "fast", 2, dtype=(torch.float16,))
    with pytest.warns(SlowPathWarning) as caught:
        ran(op), ran(op), ran(op, torch.bfloat16), ran(op, torch.float16)
    assert [str(w.message) for w in caught] == [
        f"{op.name} runs on the reference kernel: no fast kernel, because dtype {dtype} is not "
        "among float16"
        for dtype in ("float32", "bfloat16")
    ]
    assert {w.filename for w in caught} == {__file__}


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_strict_raises_instead(op, backends, monkeypatch, value):
    add_kernel(op, "fast", 2, dtype=(torch.float16,))
    with pytest.warns(SlowPathWarning):
        ran(op)
    monkeypatch.setenv("LOWBIT_STRICT", value)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"no fast kernel, .* \(LOWBIT_STRICT is set\)"):
            ran(op)
    assert ran(op, torch.float16) == 2
    with use_backend("reference"):
        assert ran(op) == 0  # asked for
    assert op.overload(X.to("meta")).is_meta  # nothing runs


def test_use_backend_forces_nests_and_restores(op, backends):
    add_kernel(op, "slow", 1)
    add_kernel(op, "fast", 2)
    with use_backend("slow"):
        assert ran(op) == 1
        with use_backend("reference"):
            assert ran(op) == 0
            with use_backend(None):
                assert ran(op) == 2
        assert ran(op) == 1
    assert ran(op) == 2
    with pytest.raises(KeyError), use_backend("slow"):
        raise KeyError
    assert registry.forced_backend() is None


def test_use_backend_refuses_unknown_names():
    with pytest.raises(ValueError) as refusal, use_backend("gpu"):
        pass
    text = str(refusal.value)
    assert text.startswith("use_backend: name must be one of reference, cpu, cuda, ")
    assert text.endswith("got 'gpu'")
    assert registry.forced_backend() is None


def test_use_backend_is_of_its_thread(op, backends):
    add_kernel(op, "slow", 1)
    add_kernel(op, "fast", 2)
    inside, seen = threading.Barrier(2, timeout=10), {}

    def work(name):
        with use_backend(name):
            inside.wait()
            seen[name] = [ran(op) for _ in range(50)]
            inside.wait()
            seen[name + " after"] = registry.forced_backend()

    workers = [threading.Thread(target=work, args=(name,)) for name in ("slow", "reference")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen["slow"] == [1] * 50 and seen["reference"] == [0] * 50
    assert registry.forced_backend() is None


def test_a_forced_backend_that_cannot_run_says_why(op, backends):
    add_kernel(op, "fast", 2, dtype=(torch.float16,))
    cases = {
        "fast": "dtype float32 is not among float16",
        "slow": "the op has no such kernel",
        "elsewhere": "the op has no such kernel",
    }
    for name, why in cases.items():
        with use_backend(name), pytest.raises(RuntimeError) as refusal:
            ran(op)
        text = f"{op.name}: backend must be one that covers the call, got {name}; {why}"
        assert str(refusal.value) == text


def test_out_variant_chooses_too(op, backends):
    add_kernel(op, "fast", 2)
    out = torch.full((), 7.0)
    op.out_overload(X, out)
    assert out == 2
    with use_backend("reference"):
        op.out_overload(X, out)
    assert out == 0


def test_compiled_graphs_honour_use_backend_at_run_time(op, backends):
    add_kernel(op, "slow", 1)
    add_kernel(op, "fast", 2)
    compiled = torch.compile(lambda x: op.overload(x) + 10, fullgraph=True, backend="aot_eager")
    assert compiled(X) == 12
    with use_backend("slow"):
        assert compiled(X) == 11
    with use_backend("reference"):
        assert compiled(X) == 10
    assert compiled(X) == 12


def test_choosing_is_safe_in_many_threads(op, backends):
    add_kernel(op, "fast", 2)
    results = []
    workers = [
        threading.Thread(target=lambda: results.extend(ran(op) for _ in range(100)))
        for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [2] * 800


def test_evidence_is_given_for_every_row():
    for op in registry.OPS.values():
        for row in op.rows:
            assert row.evidence, (op.name, row.backend)
            assert row.backend in registry.BACKENDS
