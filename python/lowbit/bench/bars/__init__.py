"""Bars: what speed must be reached, as data (<op>.json), measured and judged in one run.

A file has `layers` (N, K), `runs` (name -> the fields of a Plan that differ from the default) and
`bars`: each names its run and its kind, a function of evaluators.py, and has that kind's numbers.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from typing import Any

from lowbit.bench.bars.evaluators import KINDS, Facts, Outcome
from lowbit.bench.plan import Plan
from lowbit.bench.rows import Row

COLUMNS = ("bar", "case", "measured", "required", "verdict")


@dataclasses.dataclass(frozen=True)
class Bars:
    """The bars of an op: which layers and runs, and what is required of their rows."""

    op: str
    layers: tuple[tuple[int, int], ...]
    runs: dict[str, dict[str, Any]]
    bars: tuple[dict[str, Any], ...]

    def plans(self, more_layers: tuple[tuple[int, int], ...], base: Plan) -> list[Plan]:
        """A plan for each run. more_layers: measured where a run names no layers of its own."""
        layers = tuple(dict.fromkeys(self.layers + more_layers))
        base = dataclasses.replace(base, op=self.op, layers=layers)
        return [
            dataclasses.replace(base, run=name, **{key: _frozen(v) for key, v in fields.items()})
            for name, fields in self.runs.items()
        ]

    def judge(self, rows: list[Row], facts: Facts) -> list[Outcome]:
        """What became of each bar. A bar that found no row of its run is missed."""
        outcomes = []
        for bar in self.bars:
            measured = [row for row in rows if row.run == bar["run"]]
            found = list(KINDS[bar["kind"]](bar, measured, facts))
            outcomes += found or [Outcome(bar["name"], "", "nothing", "a measurement", False)]
        return outcomes


def names() -> list[str]:
    """The ops that have bars."""
    files = importlib.resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def read(op: str) -> Bars:
    """The bars of an op of `names()`."""
    text = importlib.resources.files(__name__).joinpath(f"{op}.json").read_text()
    data = json.loads(text)
    return Bars(data["op"], _frozen(data["layers"]), data["runs"], tuple(data["bars"]))


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
