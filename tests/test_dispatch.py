"""What the CPU library remembers of the chooser's decisions, and when it must ask again."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
import warnings
from unittest import mock

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from lowbit import SlowPathWarning, native, quantize_weight, registry, use_backend
from lowbit.bench.cases import CASES
from lowbit.registry import Backend, Kernel

pytestmark = pytest.mark.skipif(
    not native.load("_ops_cpu").loaded, reason="the CPU library is not part of this installation"
)

OP = registry.OPS["weight_only_linear"]
WEIGHT = quantize_weight(torch.linspace(-1, 1, 24 * 64).reshape(24, 64))
EXACT = 0


def arguments(op=OP, x=None, weight=WEIGHT, numerics=EXACT):
    """A call of a public op with the weight; what else the op takes is left out."""
    tensors = dict(zip(("qweight", "scales", "zeros", "table", "s0"), weight.tensors, strict=False))
    x = torch.linspace(-2, 2, 3 * weight.format.k).reshape(3, -1) if x is None else x
    values = {**tensors, "x": x, "format": list(weight.format), "numerics": numerics}
    values["dtype"] = torch.float32
    names = [part.split()[-1] for part in op.inputs.split(", ")]
    return tuple(values.get(name) for name in names)


@pytest.fixture
def asked(monkeypatch):
    """The problems put to the chooser, beginning with a thread that remembers nothing."""
    problems = []
    for op in registry.OPS.values():
        monkeypatch.setattr(op, "problem", noting(op.problem, problems))
    native.forget_choices()
    yield problems
    native.forget_choices(everywhere=True)


def noting(problem, problems):
    def note(*args):
        problems.append(problem(*args))
        return problems[-1]

    return note


@pytest.fixture
def reference_runs(monkeypatch):
    """The rows of x that the reference op was called with."""
    rows, reference = [], OP._reference

    def note(x, *others):
        rows.append(x.shape[0])
        return reference(x, *others)

    monkeypatch.setattr(OP, "_reference", note)
    return rows


def call(**changes):
    return OP.overload(*arguments(**changes))


def asks(asked, run):
    """Whether the chooser was asked during the call."""
    before = len(asked)
    run()
    return len(asked) > before


@pytest.mark.parametrize("name", ["weight_only_linear", "dequantize_weight"])
def test_the_second_call_of_a_kind_asks_no_more(asked, name):
    op = registry.OPS[name]
    args = arguments(op)
    assert asks(asked, lambda: op.overload(*args))
    assert not asks(asked, lambda: op.overload(*args))
    out = op.overload(*args)
    into = torch.full_like(out, 7.0)
    assert not asks(asked, lambda: op.out_overload(*args, into))
    assert torch.equal(out, into)
    assert (out.dtype, out.stride()) == (op.allocate(*args).dtype, op.allocate(*args).stride())


def test_the_variant_with_a_given_output_learns_as_well(asked):
    args = arguments()
    out = torch.empty(3, 24)
    assert asks(asked, lambda: OP.out_overload(*args, out))
    assert not asks(asked, lambda: OP.out_overload(*args, out))
    assert not asks(asked, call)


def test_calls_of_another_kind_ask(asked):
    x = arguments()[0]
    call()
    assert not asks(asked, lambda: call(x=x[:1]))  # the number of rows is no matter of choice
    assert asks(asked, lambda: call(x=x.bfloat16()))
    assert asks(asked, lambda: call(numerics=1))
    assert asks(asked, lambda: call(weight=quantize_weight(torch.ones(24, 64), bits=3)))
    assert asks(asked, lambda: call(weight=quantize_weight(torch.ones(8, 64))))
    args = list(arguments())
    args[[part.split()[-1] for part in OP.inputs.split(", ")].index("bias")] = torch.zeros(24)
    assert asks(asked, lambda: OP.overload(*args))
    assert not asks(asked, call)


def test_use_backend_holds_for_kinds_already_known(asked, reference_runs):
    call()
    expected = call()
    with use_backend("reference"):
        assert torch.allclose(call(), expected)
        OP.out_overload(*arguments(), torch.empty(3, 24))
        assert len(reference_runs) == 2
        with use_backend(None):
            call(), call()
        assert len(reference_runs) == 2
        call()
        assert len(reference_runs) == 3
    call()
    assert len(reference_runs) == 3


def test_a_forced_backend_of_the_library_is_remembered_too(asked):
    with use_backend("cpu"):
        call()
        assert not asks(asked, call)
    assert asks(asked, call)


def test_use_backend_is_of_its_thread(asked, reference_runs):
    call()
    entered, done = threading.Event(), threading.Event()

    def other():
        with use_backend("reference"):
            entered.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    assert not asks(asked, call)
    done.set()
    thread.join()
    assert reference_runs == []


def test_compiled_graphs_honour_use_backend(asked, reference_runs):
    compiled = torch.compile(
        lambda x: OP.overload(x, *arguments()[1:]) + 1, fullgraph=True, backend="aot_eager"
    )
    x = arguments()[0]
    compiled(x), compiled(x)
    assert reference_runs == []
    with use_backend("reference"):
        compiled(x)
    assert reference_runs == [3]


def test_use_backend_around_a_graph_break(asked, reference_runs):
    rest = arguments()[1:]

    def halves(x):
        with use_backend("reference"):
            first = OP.overload(x, *rest)
            torch._dynamo.graph_break()
            return first + OP.overload(x, *rest)

    call()
    torch.compile(halves, backend="aot_eager")(arguments()[0])
    assert reference_runs == [3, 3]
    call()
    assert reference_runs == [3, 3]


def test_use_backend_is_no_part_of_a_graph():
    def forced(x):
        with use_backend("reference"):
            return OP.overload(x, *rest)

    rest = arguments()[1:]
    with pytest.raises(torch._dynamo.exc.Unsupported, match="around a compiled call only"):
        torch.compile(forced, backend="aot_eager", fullgraph=True)(arguments()[0])
    graph = make_fx(forced)(arguments()[0]).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert called == ["lowbit.weight_only_linear.default"]


@pytest.fixture
def changeable_registry():
    with mock.patch.dict(registry.BACKENDS), mock.patch.dict(registry.OPS):
        yield


@pytest.mark.parametrize("change", ["a backend", "a row"])
def test_a_new_backend_or_row_makes_all_threads_ask(asked, changeable_registry, change):
    first, second = threading.Barrier(2, timeout=10), threading.Barrier(2, timeout=10)
    seen = []

    def other():
        call(), call()
        first.wait()
        second.wait()
        seen.append(asks(asked, call))

    thread = threading.Thread(target=other)
    thread.start()
    first.wait()
    if change == "a backend":
        registry.add_backend(Backend("newer", "cpu", 90, lambda device: None))
    else:
        probe = registry.Op(
            "probe_of_dispatch",
            "Tensor x",
            check=lambda x: None,
            allocate=torch.empty_like,
            reference=lambda x, out: out.copy_(x),
            problem=lambda x: x.dtype,
        )
        assert probe.rows
    second.wait()
    thread.join()
    assert seen == [True]


@pytest.fixture
def a_faster_backend_is_missing(monkeypatch, changeable_registry):
    monkeypatch.setattr(OP, "rows", [Kernel("faster", {}, "test"), *OP.rows])
    monkeypatch.setattr(OP, "_chosen", {})
    monkeypatch.setattr(OP, "_warned", set())
    registry.add_backend(Backend("faster", "cpu", 90, lambda device: "it was not built"))


def test_slow_choices_are_not_remembered(asked, a_faster_backend_is_missing, monkeypatch):
    monkeypatch.delenv("LOWBIT_STRICT", raising=False)
    with pytest.warns(SlowPathWarning, match="no faster kernel, because it was not built"):
        call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asks(asked, call)
    monkeypatch.setenv("LOWBIT_STRICT", "1")
    with pytest.raises(RuntimeError, match=r"it was not built \(LOWBIT_STRICT is set\)"):
        call()


def test_many_threads_at_once(asked):
    args = arguments()
    expected, wrong = OP.overload(*args), []

    def work(name):
        for _ in range(50):
            with use_backend(name):
                if not torch.allclose(OP.overload(*args), expected):
                    wrong.append(name)
            native.forget_choices(everywhere=True)

    threads = [threading.Thread(target=work, args=(n,)) for n in ("cpu", "reference", None) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


REFUSED = {
    "columns": (lambda x: x[:, :-1], r"x must have shape \[..., 64\], got \[3, 63\]"),
    "dtype": (lambda x: x.double(), "x must be float32, float16 or bfloat16, got float64"),
    "scalar": (lambda x: x.new_ones(()), r"x must have shape \[..., 64\], got \[\]"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("known", [False, True])
def test_refusals_are_value_errors_with_the_sentence(asked, what, known):
    spoil, sentence = REFUSED[what]
    if known:
        call()
    with pytest.raises(ValueError, match="weight_only_linear: " + sentence):
        call(x=spoil(arguments()[0]))
    assert asks(asked, call) is not known  # a call that was refused teaches nothing


@pytest.mark.parametrize("numbers", [[], [1] * 40])
def test_lists_of_any_length_are_refused(asked, numbers):
    names = [part.split()[-1] for part in OP.inputs.split(", ")]
    args = list(arguments())
    args[names.index("format")] = numbers
    for _ in range(2):
        with pytest.raises(ValueError, match=f"must have 8 fields, got {len(numbers)}"):
            OP.overload(*args)


def test_a_result_beyond_memory_is_refused(asked):
    call()
    x = torch.ones(1, 64)
    with pytest.raises(RuntimeError, match="the result must fit into memory, got shape .*, 24]"):
        call(x=x.expand(2**50, 64))
    assert not asks(asked, call)


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("bad value"), ValueError),
        (TypeError("bad type"), ValueError),
        (RuntimeError("bad luck"), RuntimeError),
    ],
)
def test_errors_of_other_kernels_arrive_as_they_can(monkeypatch, raised, seen):
    def fail(*args):
        raise raised

    monkeypatch.setattr(OP, "_reference", fail)
    with use_backend("reference"), pytest.raises(seen, match=f"^{raised}$"):
        call()


def test_unexpected_errors_arrive_with_their_traceback(monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("of zero")

    monkeypatch.setattr(OP, "_reference", fail)
    with use_backend("reference"), pytest.raises(RuntimeError) as error:
        call()
    assert "in fail" in str(error.value) and "ZeroDivisionError: of zero" in str(error.value)


def test_an_interrupt_arrives(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(OP, "_reference", interrupt)
    # A process that a shell starts in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with use_backend("reference"), pytest.raises(KeyboardInterrupt):
            with contextlib.suppress(RuntimeError):
                call()
            time.sleep(0.1)  # Python takes the signal up by now
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", sorted(registry.OPS))
def test_a_choice_depends_on_dtypes_and_numbers_alone(name):
    """As csrc/choices.h takes for granted."""
    op = registry.OPS[name]
    for case in CASES[name][::7]:
        args = case.make()
        bare = [torch.empty(0, dtype=a.dtype) if isinstance(a, torch.Tensor) else a for a in args]
        assert op.problem(*args) == op.problem(*bare)


def test_subclasses_modes_and_views_of_tensors(asked):
    class Named(torch.Tensor):
        pass

    x, expected = arguments()[0], call()
    assert type(call(x=x.as_subclass(Named))) is Named
    assert torch.equal(call(x=torch._neg_view(x)), -expected)
    with torch.inference_mode():
        assert call().is_inference()
    meta = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments()]
    assert OP.overload(*meta).is_meta
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        call(x=x.to_sparse())


def test_import_brings_nothing_but_lowbit_itself():
    code = """
import sys, torch
before = set(sys.modules)
import lowbit
new = set(sys.modules) - before
print(sorted(m for m in new if m.split(".")[0] != "lowbit" or m.startswith(OPTIONAL)))
"""
    optional = "OPTIONAL = ('lowbit.bench', 'lowbit.cli', 'lowbit._C', 'lowbit.nn')"
    done = subprocess.run(
        [sys.executable, "-c", optional + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_modules_are_loaded_on_first_use():
    code = """
import sys, lowbit
assert set(lowbit.__all__) <= set(dir(lowbit)) and "lowbit.nn" not in sys.modules
assert not hasattr(lowbit, "no_such_name") and "lowbit.nn" not in sys.modules
from lowbit import quantize_model
assert lowbit.nn is sys.modules["lowbit.nn"] and lowbit.nn.quantize_model is quantize_model
"""
    subprocess.run([sys.executable, "-c", code], check=True)
