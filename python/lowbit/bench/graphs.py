"""The calls of an entry on a GPU as a graph, so that no sample waits for the host.

A call takes the host some microseconds, often more than its kernel takes the GPU. A graph holds
calls on all copies of the operands, in rounds, and is launched once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from lowbit.bench import gpu

# Calls in a graph at least: between two graphs the GPU rests for some microseconds.
_CALLS = 128


@dataclasses.dataclass(frozen=True)
class Calls:
    """`work()` does `count` products. note: why they are not in a graph."""

    work: Callable[[], object]
    count: int
    note: str = ""


def captured(call: Callable, turns: Sequence[tuple]) -> Calls:
    """Calls on each of the operands in turn, in one graph if they can be captured."""
    works = [functools.partial(call, *operands) for operands in turns]
    works *= -(-_CALLS // len(works))
    try:
        replay = gpu.capture(works)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return Calls(functools.partial(_next, cycle(works)), 1, f"timed without a graph: {reason}")
    # A graph knows addresses alone: the operands live as long as the call that replays it.
    return Calls(functools.partial(_replay, replay, works), len(works))


def _next(works: Iterator[Callable[[], object]]) -> None:
    next(works)()


def _replay(replay: Callable[[], None], works: Sequence[Callable[[], object]]) -> None:
    replay()
