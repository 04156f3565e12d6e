"""What kernels cover, and the choice among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from lowbit.backends import BACKENDS


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A capability row: problem field -> the values that the backend's kernel of an op covers."""

    backend: str
    covers: Mapping[str, Container]
    evidence: str  # "modelled", "compiled", "measured on <machine>", as in the support table
    # What the device's users should have a kernel for, in the manner of `covers`: who asks for
    # anything else is not warned of a slower path.
    made_for: Mapping[str, Container] = dataclasses.field(default_factory=dict)
    # The kernel where it is called from Python; the others are registered by a compiled library.
    run: Callable | None = None

    def decline(self, problem: Any) -> str | None:
        """Why the row does not cover the problem; None if it does."""
        return _outside(self.covers, problem)

    def is_made_for(self, problem: Any) -> bool:
        """Whether it is a slower path when a problem goes to another kernel than this one."""
        return _outside(self.made_for, problem) is None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which backend would run a call, and why each other one was passed over."""

    op: str
    problem: Any
    backend: str | None
    passed_over: Mapping[str, str]
    slower_because: str | None  # set when the device offers something faster than the choice

    def __str__(self) -> str:
        fields = ", ".join(f"{k}={show(v)}" for k, v in self.problem._asdict().items())
        lines = [f"{self.op}({fields})", f"  runs on: {self.backend or 'no backend'}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.passed_over.items()]
        return "\n".join(lines)


def choose(op: str, rows: Iterable[Kernel], problem: Any, forced: str | None = None) -> Choice:
    """The first of the rows (by falling rank) that covers the problem, with reasons.

    forced: the only backend allowed.
    """
    passed_over, slower_because, chosen = {}, None, None
    for row in rows:
        reason, faster_exists = _pass_over(row, problem, forced)
        if chosen is None and reason is None:
            chosen = row.backend
            continue
        passed_over[row.backend] = reason or f"{chosen} is preferred"
        if chosen is None and faster_exists:
            slower_because = slower_because or f"no {row.backend} kernel, because {reason}"
    slower_because = None if forced else slower_because
    return Choice(op, problem, chosen, passed_over, slower_because)


def _pass_over(row: Kernel, problem: Any, forced: str | None) -> tuple[str | None, bool]:
    """(why the row is passed over or None, whether its device has such kernels at all)."""
    backend = BACKENDS[row.backend]
    if forced not in (None, row.backend):
        return f"use_backend({forced!r}) is in force", False
    if backend.device not in (None, problem.device.type):
        return f"it runs on {backend.device}, not on {problem.device.type}", False
    if forced is None and backend.rank < 0:
        return f"it runs only under use_backend({row.backend!r})", False
    reason = backend.missing(problem.device) or row.decline(problem)
    return reason, reason is not None and row.is_made_for(problem)


def _outside(ranges: Mapping[str, Container], problem: Any) -> str | None:
    for field, values in ranges.items():
        value = getattr(problem, field)
        if value not in values:
            remedy = "; call lowbit.prepack" if field == "layout" else ""
            return f"{field} {show(value)} is not among {show(values)}{remedy}"
    return None


def show(value: Any) -> str:
    """A value of a problem or row as messages give it."""
    if isinstance(value, (set, frozenset, tuple, list)):
        return ", ".join(sorted(show(v) for v in value))
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return str(value).removeprefix("torch.")
