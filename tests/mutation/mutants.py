"""A mutant: one change of a kernel text, with a name that edits elsewhere leave as it is."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """The characters start <= i < end of a text become `becomes`."""

    rule: str
    start: int
    end: int
    becomes: str
    is_statement: bool = False


@dataclass(frozen=True)
class Mutant:
    id: str  # text:function:rule:which of them
    change: Change
    what: str  # in words of the text


@dataclass(frozen=True)
class Kill:
    build: str
    seeds: tuple[int, int]  # the first, and how many
    words: str  # the first of the report


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def name_mutants(file: str, text: str, located: Iterable[tuple[str, Change]]) -> list[Mutant]:
    """Of pairs (function, change), in the order of the text."""
    counts, mutants = Counter(), []
    for function, change in sorted(located, key=lambda pair: (pair[1].start, pair[1].end)):
        counts[function, change.rule] += 1
        number = counts[function, change.rule]
        before, after = one_line(text[change.start : change.end]), one_line(change.becomes)
        what = f"{before or 'nothing'} -> {after or 'nothing'}"
        mutants.append(Mutant(f"{file}:{function}:{change.rule}:{number}", change, what))
    return mutants


def mutated(text: str, change: Change) -> str:
    becomes = f"{{ {change.becomes} }}" if change.is_statement else change.becomes
    return text[: change.start] + becomes + text[change.end :]
