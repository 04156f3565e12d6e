"""The ops and their kernels.

An `Op` is defined once (ops/<op>.py). Each backend's kernel of it is an internal torch op
`lowbit::<op>__<backend>` that writes into outputs allocated by the public op, and a `Kernel` row
says what that kernel covers. The public op `lowbit::<op>` is the chooser: it takes the covering row
of the highest rank. Rows decline; kernels never do. For calls of a kind that the chooser gave to
the kernel of the CPU library, that library serves the public op itself (csrc/dispatch.h).
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch

from lowbit import environment, native
from lowbit.backends import BACKENDS, Backend, add_backend, forced_backend, use_backend
from lowbit.choice import Choice, Kernel, choose, show
from lowbit.errors import refuse

__all__ = [
    "BACKENDS",
    "LIBRARY",
    "OPS",
    "Backend",
    "Choice",
    "Kernel",
    "Op",
    "SlowPathWarning",
    "add_backend",
    "explain",
    "forced_backend",
    "use_backend",
]

LIBRARY = torch.library.Library("lowbit", "DEF")
OPS: dict[str, Op] = {}


class SlowPathWarning(UserWarning):
    """A call runs on a slower kernel than its device offers. Warned once for each reason."""


class Op:
    """One op: its schema, its meaning, and the kernels that compute it.

    inputs   schema of the arguments, e.g. "Tensor x, int mode"
    outputs  names of the results; each kernel takes them last, as `Tensor(a!) <name>`
    allocate(*args) -> the uninitialised results; with fake tensors too
    check(*args)    raises on a call that must be refused (shapes, dtypes, devices; no data)
    reference(*args, *outputs)   pure torch, every device, every case
    problem(*args)  -> a hashable NamedTuple with a field `device`: what the rows are matched with.
                    It reads dtypes, devices, which tensors are given, and numbers, but no shapes
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
        if row.run is not None:
            LIBRARY.impl(internal, row.run, BACKENDS[row.backend].device.upper())
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
        """What a choice is remembered by."""
        return self.problem(*args), forced_backend()

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

    def choose(self, problem: Any, forced: str | None = None) -> Choice:
        """The choice for a problem, with reasons. `forced`: the only backend allowed."""
        return choose(self.name, self.rows, problem, forced)

    def _report_slow(self, choice: Choice) -> None:
        reason = f"{self.name} runs on the {choice.backend} kernel: {choice.slower_because}"
        if environment.strict():
            raise RuntimeError(f"{reason} (LOWBIT_STRICT is set)")
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(reason, SlowPathWarning, stacklevel=_frames_to_the_caller())


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
    return f"{show(tensor.dtype)} {list(tensor.shape)} on {tensor.device}"


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


# They ask and set the instruction set of the CPU kernels (csrc/cpu/isa.cpp); see native.use_isa.
LIBRARY.define("_cpu_isa(str request) -> str")
LIBRARY.define("_cpu_default_isa(str request) -> str")
LIBRARY.define("_cpu_forget_choices_address() -> int")
# Bytes and operations a second at most (csrc/cpu/probe.cpp); see bench/probe.py.
LIBRARY.define("_probe_read(Tensor buffer) -> float")
LIBRARY.define("_probe_peak(str kind) -> float")
