"""summary.md, written anew after each step, and the line for docs/gpu_log.md."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from collections.abc import Sequence

from bench.gpu_day.machine import Gpu
from bench.gpu_day.runner import FAILED, PASSED, Outcome
from bench.gpu_day.steps import FIGURES

LOG_COLUMNS = ("date", "commit", "GPU", "driver", "torch", "steps", "figures")


@dataclasses.dataclass(frozen=True)
class Heading:
    """What the results are of."""

    gpu: Gpu
    commit: str
    dry: bool = False
    date: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    )

    def summary(self, outcomes: Sequence[Outcome]) -> str:
        """A table of the steps so far, the line for the log, and what failed steps printed."""
        kind = "Dry run" if self.dry else self.gpu.name
        table = [_row(("step", "result", "s", "says")), _row(["---"] * 4)]
        table += [_row((o.step.name, o.verdict, f"{o.seconds:.1f}", o.says)) for o in outcomes]
        parts = [f"# {kind}, {self.date}, commit {self.commit}", "\n".join(table)]
        parts += [] if self.dry else ["For docs/gpu_log.md:", self.log_line(outcomes)]
        failed = [o for o in outcomes if o.verdict == FAILED and o.tail]
        parts += [f"## {o.step.name}\n\n```\n{o.tail}\n```" for o in failed]
        return "\n\n".join(parts) + "\n"

    def log_line(self, outcomes: Sequence[Outcome]) -> str:
        """A row of the table in docs/gpu_log.md."""
        figures = [o.says for o in outcomes if o.step in FIGURES and o.verdict == PASSED]
        return _row(
            (
                self.date,
                self.commit,
                self.gpu.name,
                self.gpu.driver,
                _version("torch"),
                _counted(outcomes),
                "; ".join(figures) or "none",
            )
        )


def _counted(outcomes: Sequence[Outcome]) -> str:
    passed = sum(outcome.verdict == PASSED for outcome in outcomes)
    others = [f"{o.step.name} {o.verdict}" for o in outcomes if o.verdict != PASSED]
    return ", ".join([f"{passed} of {len(outcomes)} passed", *others])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
