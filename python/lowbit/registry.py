"""The ops, their kernels, and the choice among them.

An `Op` is defined once (ops/<op>.py). Each backend's kernel of it is an internal torch op
`lowbit::<op>__<backend>` that writes into outputs allocated by the public op, and a `Kernel` row
says what that kernel covers. The public op `lowbit::<op>` has one implementation, the chooser: it
takes the covering row of the highest rank. Rows decline; kernels never do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch

from lowbit import environment, native
from lowbit.errors import refuse

LIBRARY = torch.library.Library("lowbit", "DEF")
OPS: dict[str, Op] = {}
BACKENDS: dict[str, Backend] = {}

_local = threading.local()


class SlowPathWarning(UserWarning):
    """A call runs on a slower kernel than its device offers. Warned once for each reason."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where kernels of one kind run. `missing(device)` tells why they cannot, None if they can."""

    name: str
    device: str | None  # the torch device type; None: every device
    rank: int  # the chooser prefers the higher rank; below 0 only use_backend takes it
    missing: Callable[[torch.device], str | None]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A capability row: problem field -> the values that the backend's kernel of an op covers."""

    backend: str
    covers: Mapping[str, Container]
    evidence: str  # "modelled", "compiled", "measured on <machine>", as in the support table

    def decline(self, problem: Any) -> str | None:
        """Why the row does not cover the problem; None if it does."""
        for field, values in self.covers.items():
            value = getattr(problem, field)
            if value not in values:
                return f"{field} {_show(value)} is not among {_show(values)}"
        return None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which backend would run a call, and why each other one was passed over."""

    op: str
    problem: Any
    backend: str | None
    passed_over: Mapping[str, str]
    slower_because: str | None  # set when the device offers something faster than the choice

    def __str__(self) -> str:
        fields = ", ".join(f"{k}={_show(v)}" for k, v in self.problem._asdict().items())
        lines = [f"{self.op}({fields})", f"  runs on: {self.backend or 'no backend'}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.passed_over.items()]
        return "\n".join(lines)


class Op:
    """One op: its schema, its meaning, and the kernels that compute it.

    inputs   schema of the arguments, e.g. "Tensor x, int mode"
    outputs  names of the results; each kernel takes them last, as `Tensor(a!) <name>`
    allocate(*args) -> the uninitialised results; with fake tensors too
    check(*args)    raises on a call that must be refused (shapes, dtypes, devices; no data)
    reference(*args, *outputs)   pure torch, every device, every case
    problem(*args)  -> a hashable NamedTuple with a field `device`: what the rows are matched with
    flatten(*public arguments) -> args, for `explain`
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        outputs: tuple[str, ...] = ("out",),
        *,
        check: Callable,
        allocate: Callable,
        reference: Callable,
        problem: Callable,
        flatten: Callable | None = None,
    ):
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self.check, self.allocate, self.problem = check, allocate, problem
        self.flatten = flatten
        self.rows: list[Kernel] = []
        self._kernels: dict[str, Callable] = {}
        self._chosen: dict[tuple, str] = {}
        self._warned: set[str] = set()
        self._define(reference)
        OPS[name] = self

    def _define(self, reference: Callable) -> None:
        results = ", ".join(["Tensor"] * len(self.outputs))
        results = f"({results})" if len(self.outputs) > 1 else results
        LIBRARY.define(f"{self.name}({self.inputs}) -> {results}")
        LIBRARY.impl(self.name, self._call, "CompositeExplicitAutograd")
        torch.library.register_fake(f"lowbit::{self.name}", self._fake, lib=LIBRARY)
        LIBRARY.define(f"{self.name}_out({self._with_outputs()}) -> ()")
        LIBRARY.impl(f"{self.name}_out", self._call_out, "CompositeExplicitAutograd")
        LIBRARY.impl(f"{self.name}_out", _nothing, "Meta")
        self._define_chooser(self.name, self.inputs, self._call, len(self.outputs))
        self._define_chooser(f"{self.name}_out", self._with_outputs(), self._call_out, 0)
        self.add_kernel(Kernel("reference", {}, "the definition"))
        self._reference = reference
        LIBRARY.impl(f"{self.name}__reference", self._call_reference, "CompositeExplicitAutograd")

    def _define_chooser(self, name: str, arguments: str, call: Callable, results: int) -> None:
        """`lowbit::<name>__chooser`: `call` for csrc/dispatch.h, which no exception can pass.

        Returns ("", *results, the backend that may serve such calls without asking again or "") or
        (the kind of error, *nothings, its text). The texts stand around the results because
        torch_call_dispatcher takes the types of results in reverse order (seen in torch 2.13).
        """
        types = ", ".join(["str", *["Tensor"] * results, "str"])
        LIBRARY.define(f"{name}__chooser({arguments}) -> ({types})")

        def chooser(*args):
            try:
                out = call(*args)
            except (Exception, KeyboardInterrupt) as error:
                kind, text = _told(error)
                return kind, *[torch.empty(0)] * results, text
            out = out if type(out) is tuple else (out,)
            inputs = args if results else args[: -len(self.outputs)]
            return "", *out[:results], self._chosen.get(self._question(inputs), "")

        LIBRARY.impl(f"{name}__chooser", chooser, "CompositeExplicitAutograd")

    def _with_outputs(self) -> str:
        marks = "abcdefgh"
        named = zip(self.outputs, marks, strict=False)
        return ", ".join([self.inputs, *(f"Tensor({mark}!) {name}" for name, mark in named)])

    def add_kernel(self, row: Kernel) -> None:
        """Define `lowbit::<op>__<backend>` and offer it to the chooser."""
        internal = f"{self.name}__{row.backend}"
        LIBRARY.define(f"{internal}({self._with_outputs()}) -> ()")
        LIBRARY.impl(internal, _nothing, "Meta")
        self._kernels[row.backend] = getattr(torch.ops.lowbit, internal).default
        self.rows.append(row)
        self.rows.sort(key=lambda r: BACKENDS[r.backend].rank, reverse=True)
        self._chosen.clear()
        native.forget_choices(everywhere=True)

    @property
    def overload(self):
        """The public op, e.g. torch.ops.lowbit.weight_only_linear.default."""
        return getattr(torch.ops.lowbit, self.name).default

    @property
    def out_overload(self):
        """The public op that writes into given outputs."""
        return getattr(torch.ops.lowbit, f"{self.name}_out").default

    def _call(self, *args):
        try:
            out = self.allocate(*args)
            kernel = self._kernel(args)
        except Exception:
            self.check(*args)  # the public function did so; a direct call may not fit the schema
            raise
        kernel(*args, *(out if type(out) is tuple else (out,)))
        return out

    def _call_out(self, *args):
        inputs = args[: len(args) - len(self.outputs)]
        try:
            kernel = self._kernel(inputs)
        except Exception:
            self.check(*inputs)
            raise
        kernel(*args)

    def _call_reference(self, *args):
        """The reference as a compiled kernel runs: all checked, nothing cast, no graph recorded."""
        count = len(args) - len(self.outputs)
        inputs, outputs = args[:count], args[count:]
        self.check(*inputs)
        self._check_outputs(inputs, outputs)
        with torch.no_grad(), torch.autocast(outputs[0].device.type, enabled=False):
            self._reference(*args)

    def _check_outputs(self, inputs: tuple, outputs: tuple) -> None:
        own = self.allocate(*inputs)
        own = own if type(own) is tuple else (own,)
        for name, given, like in zip(self.outputs, outputs, own, strict=True):
            if _kind(given) != _kind(like):
                refuse(self.name, name, f"be {_kind(like)}", _kind(given))
            if not given.is_contiguous():
                refuse(self.name, name, "be contiguous", f"strides {list(given.stride())}")

    def _fake(self, *args):
        self.check(*args)
        return self.allocate(*args)

    def _question(self, args: tuple) -> tuple[Any, str | None]:
        return self.problem(*args), getattr(_local, "backend", None)

    def _kernel(self, args: tuple) -> Callable:
        question = self._question(args)
        return self._kernels[self._chosen.get(question) or self._resolve(args, *question)]

    def _resolve(self, args: tuple, problem: Any, forced: str | None) -> str:
        self.check(*args)  # before a warning about the backend of a call that is refused
        # An op without a public function is a part of another: backward has fewer kernels.
        internal = self.flatten is None and forced not in self._kernels
        choice = self.choose(problem, None if internal else forced)
        if choice.backend is None:
            reason = choice.passed_over.get(forced, "the op has no such kernel")
            refuse(
                self.name, "backend", "be one that covers the call", forced, reason, RuntimeError
            )
        if choice.slower_because is None:
            self._chosen[problem, forced] = choice.backend
        else:
            self._report_slow(choice)
        return choice.backend

    def _report_slow(self, choice: Choice) -> None:
        reason = f"{self.name} runs on the {choice.backend} kernel: {choice.slower_because}"
        if environment.strict():
            raise RuntimeError(f"{reason} (LOWBIT_STRICT is set)")
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(reason, SlowPathWarning, stacklevel=_frames_to_the_caller())

    def choose(self, problem: Any, forced: str | None = None) -> Choice:
        """The choice for a problem, with reasons. `forced`: the only backend allowed."""
        passed_over, slower_because, chosen = {}, None, None
        for row in self.rows:
            reason, faster_exists = self._pass_over(row, problem, forced)
            if chosen is None and reason is None:
                chosen = row.backend
                continue
            passed_over[row.backend] = reason or f"{chosen} is preferred"
            if chosen is None and faster_exists:
                slower_because = slower_because or f"no {row.backend} kernel, because {reason}"
        slower_because = None if forced else slower_because
        return Choice(self.name, problem, chosen, passed_over, slower_because)

    def _pass_over(self, row: Kernel, problem: Any, forced: str | None) -> tuple[str | None, bool]:
        """(why the row is passed over or None, whether its device has such kernels at all)."""
        backend = BACKENDS[row.backend]
        if forced not in (None, row.backend):
            return f"use_backend({forced!r}) is in force", False
        if backend.device not in (None, problem.device.type):
            return f"it runs on {backend.device}, not on {problem.device.type}", False
        if forced is None and backend.rank < 0:
            return f"it runs only under use_backend({row.backend!r})", False
        reason = backend.missing(problem.device) or row.decline(problem)
        return reason, reason is not None


def add_backend(backend: Backend) -> None:
    """Make a backend known to the chooser."""
    BACKENDS[backend.name] = backend
    native.forget_choices(everywhere=True)


def forced_backend() -> str | None:
    """The backend that use_backend forces in this thread."""
    return getattr(_local, "backend", None)


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block every lowbit op of this thread runs on the named backend, or raises.

    Read when an op runs, so compiled graphs honour it; in a function that torch.compile traces it
    breaks the graph. None: the chooser decides again.
    Raises ValueError for an unknown name.
    """
    if name is not None and name not in BACKENDS:
        refuse("use_backend", "name", f"be one of {', '.join(BACKENDS)}", repr(name))
    if torch.compiler.is_dynamo_compiling():
        torch._dynamo.graph_break(msg="lowbit.use_backend takes effect around a compiled call only")
    previous = forced_backend()
    _force(name)
    try:
        yield
    finally:
        _force(previous)


def _force(name: str | None) -> None:
    _local.backend = name
    native.forget_choices()  # of this thread, as they were made for another backend in force


def explain(op: str, *args: Any, **kwargs: Any) -> Choice:
    """Which backend `lowbit.<op>(*args, **kwargs)` would run on, and why not on each other one.

    Takes the arguments of the public function but `out`, and honours use_backend. Print the result.
    """
    if op not in OPS or OPS[op].flatten is None:
        names = ", ".join(name for name, known in OPS.items() if known.flatten)
        refuse("explain", "op", f"be one of {names}", repr(op))
    definition = OPS[op]
    return definition.choose(
        definition.problem(*definition.flatten(*args, **kwargs)), forced_backend()
    )


def _kind(tensor: torch.Tensor) -> str:
    return f"{_show(tensor.dtype)} {list(tensor.shape)} on {tensor.device}"


def _frames_to_the_caller() -> int:
    """The stacklevel at which a warning names the line outside lowbit and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("lowbit", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def _told(error: BaseException) -> tuple[str, str]:
    """(kind, text) of an error, for csrc/dispatch.h: C++ can raise no other kinds in Python."""
    if isinstance(error, KeyboardInterrupt):
        return "KeyboardInterrupt", "interrupted"
    if isinstance(error, (ValueError, TypeError)):
        return "ValueError", str(error)
    expected = isinstance(error, (RuntimeError, Warning))
    return "RuntimeError", str(error) if expected else traceback.format_exc()


def _nothing(*args: Any) -> None:
    """What an op does to tensors without memory when its results are given."""


def _show(value: Any) -> str:
    if isinstance(value, (set, frozenset, tuple, list)):
        return ", ".join(sorted(_show(v) for v in value))
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return str(value).removeprefix("torch.")


_NO_GPU = "torch sees no CUDA device; run on a machine with an NVIDIA GPU and a CUDA build of torch"


def _library_missing(name: str) -> Callable[[torch.device], str | None]:
    def missing(device: torch.device) -> str | None:
        library = native.load(name)
        if library.loaded:
            return None
        return f"{library.reason}; {library.remedy}" if library.remedy else library.reason

    return missing


def _cuda_missing(device: torch.device) -> str | None:
    absent = _library_missing("_ops_cuda")(device)
    if absent or device.type != "cuda":
        return absent
    if not torch.cuda.is_available():
        return _NO_GPU
    major, minor = torch.cuda.get_device_capability(device)
    if native.cuda_arch_supported(major, minor):
        return None
    remedy = f"rebuild with LOWBIT_CUDA_ARCHS including {major}{minor}"
    return f"the CUDA kernels were not built for sm_{major}{minor}; {remedy}"


def _triton_missing(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install triton"
    return None if torch.cuda.is_available() else _NO_GPU


# They ask and set the instruction set of the CPU kernels (csrc/cpu/isa.cpp); see native.use_isa.
LIBRARY.define("_cpu_isa(str request) -> str")
LIBRARY.define("_cpu_default_isa(str request) -> str")
LIBRARY.define("_cpu_forget_choices_address() -> int")
# Bytes and operations a second at most (csrc/cpu/probe.cpp); see bench/probe.py.
LIBRARY.define("_probe_read(Tensor buffer) -> float")
LIBRARY.define("_probe_peak(str kind) -> float")
add_backend(Backend("reference", None, 0, lambda device: None))
add_backend(Backend("cpu", "cpu", 20, _library_missing("_ops_cpu")))
add_backend(Backend("cuda", "cuda", 20, _cuda_missing))
add_backend(Backend("triton", "cuda", 10, _triton_missing))
