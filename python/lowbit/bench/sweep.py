"""`lowbit check`: every case on every runner of this machine, counted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from lowbit import native, registry
from lowbit.bench import check
from lowbit.bench.cases import CASES

COLUMNS = ("op", "runs on", "cases", "failed", "not covered", "worst error / limit", "note")
_BITWISE_NOTE = "bit for bit"
_ABSENT = "n/a: "
_NO_KERNEL = f"{_ABSENT}the op has no such kernel"


@dataclasses.dataclass
class Tally:
    """What came of the cases of an op on one runner (a backend, or one instruction set of it)."""

    op: str
    backend: str
    isa: str = ""
    passed: int = 0
    declined: int = 0
    worst: float = 0.0
    note: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """The backend, with the instruction set where one is forced."""
        return f"{self.backend}-{self.isa}" if self.isa else self.backend

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        if self.note:
            return (self.op, self.name, "", "", "", "", self.note)
        count, failed = self.passed + len(self.failures), len(self.failures)
        bitwise = self.op in check.BITWISE
        worst = _BITWISE_NOTE if bitwise else f"{self.worst:.2f}"
        cells = (self.op, self.name, count, failed, self.declined, worst, "FAILED" * bool(failed))
        return tuple(map(str, cells))

    def run(self, cases: Sequence, seed: int) -> None:
        """Check the cases; an exception of a kernel is a failure like a wrong number."""
        if self.note:
            return
        with native.use_isa(self.isa) if self.isa else contextlib.nullcontext():
            for case in cases:
                self._run_case(case, seed)

    def _run_case(self, case, seed: int) -> None:
        try:
            args = case.make(seed, check.device_of(self.backend))
            if check.declined(self.op, self.backend, args):
                self.declined += 1
                return
            comparison = check.check(self.op, self.backend, case, seed)
        except Exception as error:  # whatever a kernel raises is a finding
            repro = f"lowbit check {self.op} --backend {self.backend} --seed {seed} --case {case}"
            repro += f" --isa {self.isa}" if self.isa else ""
            self.failures.append(f"{self.name}: {type(error).__name__}: {error}\n  repro: {repro}")
            return
        self.passed += 1
        if comparison.limit_abs:
            self.worst = max(self.worst, comparison.max_abs / comparison.limit_abs)


def tallies(ops: Sequence[str], backends: Sequence[str], isas: Sequence[str]) -> Iterator[Tally]:
    """An empty tally for each runner; a note says why one cannot run. No backends: those of the op.

    A backend asked for by name that the op does not have gets a note as well.
    """
    for op in ops:
        rows = [row.backend for row in registry.OPS[op].rows]
        for backend in backends or rows:
            if backend not in rows:
                yield Tally(op, backend, note=_NO_KERNEL)
            elif reason := check.unavailable(backend):
                yield Tally(op, backend, note=f"{_ABSENT}{reason}")
            elif backend == "cpu":
                yield from (Tally(op, backend, isa, note=_isa_note(isa)) for isa in isas)
            else:
                yield Tally(op, backend)


def summary(tallies: Sequence[Tally], seconds: float) -> str:
    """One sentence: what passed where and how long it took, or why nothing was checked."""
    ran = [tally for tally in tallies if tally.passed or tally.failures]
    if not ran:
        return f"nothing was checked: {_why_nothing(tallies)}"
    passed, failed = sum(t.passed for t in ran), sum(len(t.failures) for t in ran)
    names = list(dict.fromkeys(tally.name for tally in ran))
    backends = f"{len(names)} backend{'s' * (len(names) > 1)} ({', '.join(names)})"
    return f"{passed} of {passed + failed} cases passed on {backends} in {seconds:.1f} s"


def _why_nothing(tallies: Sequence[Tally]) -> str:
    absent = [tally for tally in tallies if tally.note != _NO_KERNEL] or tallies
    notes = [f"{t.name}: {t.note.removeprefix(_ABSENT)}" for t in absent if t.note]
    return "; ".join(dict.fromkeys(notes)) or "no kernel asked for covers these cases"


def _isa_note(isa: str) -> str:
    try:
        with native.use_isa(isa):
            return ""
    except RuntimeError as error:  # this CPU lacks it
        return f"{_ABSENT}{error}"


def cases_of(op: str, pattern: str | None) -> list:
    """The cases of an op whose name contains the pattern."""
    return [case for case in CASES.get(op, ()) if pattern is None or pattern in str(case)]
