"""Runs the steps one after the other, each within its time, and keeps what came of them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.gpu_day import machine
from bench.gpu_day.steps import GRACE, LIMIT, UNSUPPORTED, Step

PASSED, FAILED, ABSENT = "passed", "FAILED", "n/a"
DRY = "dry"  # in place of passed: what a dry run shows is less
_TAIL = 40  # lines of a failed step's output


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a step. says: the last line that it printed, or why it did not run."""

    step: Step
    verdict: str
    seconds: float
    says: str
    tail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it stands in the way of an exit status of 0; what is not supported does not."""
        return self.verdict != FAILED

    @property
    def line(self) -> str:
        """For the terminal: all lines of a failure."""
        first = f"{self.verdict:7}{self.seconds:6.1f} s  {self.step.name}: {self.says}"
        return f"{first}\n{self.tail}" if self.verdict == FAILED and self.tail else first


class Day:
    """The steps of one run of the command. words: what stands for {python}, {out} and so on."""

    def __init__(self, root: Path, words: dict[str, str], environment: dict[str, str], dry: bool):
        self.outcomes: list[Outcome] = []
        self._root, self._words, self._environment, self._dry = root, words, environment, dry
        self._stop = time.monotonic() + LIMIT

    def run(self, steps: Sequence[Step]) -> Iterator[Outcome]:
        """The outcome of each step as it ends; none stops those behind it."""
        for step in steps:
            self.outcomes.append(self._outcome(step))
            yield self.outcomes[-1]

    def _outcome(self, step: Step) -> Outcome:
        if missing := self._missing(step):
            return Outcome(step, FAILED, 0.0, f"not there: {', '.join(missing)}")
        left = self._stop - time.monotonic()
        if left <= 0:
            return Outcome(step, FAILED, 0.0, f"no time left of {LIMIT} s")
        limit = left if self._dry else min(step.limit, left)  # a laptop has fewer cores
        if self._dry:
            self._announce(step)
        start = time.monotonic()
        status, text = self._execute(self._command(step), limit)
        seconds = time.monotonic() - start
        if step.prints and not self._dry:
            Path(self._words["out"], step.output).write_text(text)
        return self._judged(step, status, text, seconds)

    def _judged(self, step: Step, status: int | None, text: str, seconds: float) -> Outcome:
        lines = [line for line in text.splitlines() if line.strip()] or ["it printed nothing"]
        tail = "\n".join(lines[-_TAIL:])
        if status is None:
            says = f"stopped after {seconds:.0f} s: {lines[-1]}"
            return Outcome(step, FAILED, seconds, says, tail)
        if status == UNSUPPORTED:
            return Outcome(step, ABSENT, seconds, lines[-1])
        if status == 0 and not self._left_its_file(step):
            return Outcome(step, FAILED, seconds, f"it left no {step.output}", tail)
        if self._dry and not status:
            return Outcome(step, DRY, seconds, f"{step.shows} ({lines[-1]})")
        return Outcome(step, FAILED if status else PASSED, seconds, lines[-1], tail)

    def _left_its_file(self, step: Step) -> bool:
        return self._dry or not step.output or Path(self._words["out"], step.output).is_file()

    def _missing(self, step: Step) -> list[str]:
        missing = [name for name in step.modules if not self._importable(name)]
        missing += [name for name in step.files if not (self._root / name).exists()]
        programs = () if self._dry else step.programs
        return missing + [name for name in programs if not machine.program(name)]

    def _importable(self, module: str) -> bool:
        """lowbit is that of the tree, since the one to be tested may not be built yet."""
        if module.startswith("lowbit."):
            return (self._root / "python" / f"{module.replace('.', '/')}.py").is_file()
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.util.find_spec(module) is not None
        return False

    def _announce(self, step: Step) -> None:
        print(f"\n{step.name}, at most {step.limit} s: {shlex.join(self._filled(step.command))}")
        for name in step.programs:
            print(f"  {name}: {machine.program(name) or 'not on this machine'}")

    def _command(self, step: Step) -> list[str]:
        return self._filled(step.small if self._dry else step.command)

    def _filled(self, command: tuple[str, ...]) -> list[str]:
        return [word.format(**self._words) for word in command]

    def _execute(self, command: list[str], limit: float) -> tuple[int | None, str]:
        """(exit status, what it printed); None when its time ran out."""
        with _interrupts_heard():
            process = subprocess.Popen(
                command,
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        try:
            text, _ = process.communicate(timeout=limit)
            return process.returncode, text
        except subprocess.TimeoutExpired:
            return None, _stopped(process)
        except BaseException:
            _signal(process, signal.SIGKILL)
            process.wait()
            raise


@contextlib.contextmanager
def _interrupts_heard() -> Iterator[None]:
    """What a shell runs in the background ignores interrupts, and so would all that it starts."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stopped(process: subprocess.Popen) -> str:
    """What it printed. Interrupted, pytest and `lowbit bench` write what they have."""
    _signal(process, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=GRACE)
    _signal(process, signal.SIGKILL)
    text, _ = process.communicate()
    return text


def _signal(process: subprocess.Popen, number: int) -> None:
    """To its children too: compilers, kernels."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
