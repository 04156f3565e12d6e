"""Command-line arguments of `lowbit`: their types, and the one sentence that refuses a value."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from lowbit import registry
from lowbit.bench.cases import AXES
from lowbit.errors import dtype_name
from lowbit.ops.weight_only_linear import X_DTYPES

DTYPES = {dtype_name(dtype): dtype for dtype in X_DTYPES}
_SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_AXES = ("M", "N", "K")
INTERRUPTED = 130  # the exit status of 128 + SIGINT, as shells report it


class UsageError(Exception):
    """Arguments that do not fit each other or this machine, in one sentence."""


class Parser(argparse.ArgumentParser):
    """Says one sentence about wrong arguments, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def refuse(need: str, got: str) -> NoReturn:
    """The sentence behind argparse's name of the argument."""
    raise argparse.ArgumentTypeError(f"must {need}, got {got!r}")


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A name out of a list."""

    def parse(text: str) -> str:
        return text if text in names else refuse(f"be one of {', '.join(names)}", text)

    return parse


def list_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Names with commas between, each out of a list."""
    parse_one = one_of(names)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_one(name.strip()) for name in text.split(",")))

    return parse


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """An integer from low up to high."""
    need = f"be an integer of at least {low}" if high is None else f"be an integer in {low}..{high}"
    top = math.inf if high is None else high
    return lambda text: _number(int, text, need, lambda value: low <= value <= top)


def _number(kind: type, text: str, need: str, fits: Callable[[Any], bool]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        refuse(need, text)
    return value if fits(value) else refuse(need, text)


def integers(low: int, high: int | None = None) -> Callable[[str], tuple[int, ...]]:
    """Integers from low up to high with commas between."""
    parse_one = integer(low, high)
    return lambda text: tuple(dict.fromkeys(parse_one(part) for part in text.split(",")))


def group_size(text: str) -> int:
    """Columns of a group; -1 is one group a row."""
    need = "be -1 (one group a row) or an integer of at least 1"
    return _number(int, text, need, lambda value: value == -1 or value >= 1)


def seconds(text: str) -> float:
    """A positive number."""
    return _number(float, text, "be a positive number of seconds", lambda value: 0 < value < 1e6)


def percent(text: str) -> float:
    """A positive percentage, as a fraction."""
    need = "be a number of percent above 0 and below 100"
    return _number(float, text, need, lambda value: 0 < value < 100) / 100


def dtype(text: str) -> torch.dtype:
    """float32, float16 or bfloat16, or fp32, fp16, bf16."""
    name = _SHORT.get(text, text)
    return DTYPES[name] if name in DTYPES else refuse(f"be one of {', '.join(DTYPES)}", text)


def shapes(text: str) -> dict[str, tuple[int, ...]]:
    """ "M=1,16;N=4096;K=4096" as a dict; M may be missing, and N and K together."""
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    axes = {name.strip().upper(): values for name, _, values in parts}
    whole = axes and not set(axes) - set(_AXES) and ("N" in axes) == ("K" in axes)
    if not whole or len(axes) != len(parts):
        refuse('look like "M=1,16;N=4096;K=4096"', text)
    return {name: integers(1)(values) for name, values in axes.items()}


def op_name() -> Callable[[str], str]:
    """The name of an op."""
    return one_of(list(registry.OPS))


def add_list(command: argparse.ArgumentParser, flag: str, names: Sequence[str]) -> None:
    """An option that takes some of the names."""
    text = "some of " + ", ".join(names)
    command.add_argument(flag, type=list_of(names), default=(), metavar="LIST", help=text)


def add_format(command: argparse.ArgumentParser) -> None:
    """The options that a call has besides its shape and bits."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--group-size", type=group_size, default=128, help="-1: a row")
    command.add_argument("--dtype", type=dtype, default=torch.float32, help=", ".join(DTYPES))
    command.add_argument("--device", choices=("cpu", "cuda"), default=device)


def require_axis(op: str, axis: str, option: str, value: int | str | None) -> None:
    """Refuse an option that the op does not have: it would change nothing."""
    if value is not None and axis not in AXES[op]:
        raise UsageError(f"{option} must be left out with {op}, which has no {axis}, got {value}")


def prepare_file(path: Path) -> None:
    """Refuse at once what could not be written after minutes of timing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = not path.exists() or path.is_file()
    except OSError:
        free = False
    if not free or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--out must name a file that can be written, got {path}")
