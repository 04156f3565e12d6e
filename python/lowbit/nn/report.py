"""What quantize_model did to a model, and how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class QuantizedLayer:
    """One replaced linear of out_features x in_features; bytes of its weight, without the bias."""

    name: str
    in_features: int
    out_features: int
    bytes_before: int
    bytes_after: int


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """The result of one quantize_model call: `model.lowbit_report`. Print it.

    layers: the replaced linears in the order of the model; a module with several names once, under
        the first. skipped: name -> reason, for every linear that was left alone.
    model_bytes_before, model_bytes_after: all parameters and buffers, shared memory counted once.
    """

    layers: tuple[QuantizedLayer, ...]
    skipped: Mapping[str, str]
    model_bytes_before: int
    model_bytes_after: int

    @property
    def bytes_before(self) -> int:
        """Bytes of the replaced weights before."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the replaced weights now: codes, scales, zero points, tables, low-rank pairs.

        In the layout in which the layers hold them: panels are filled up to whole ones.
        """
        return sum(layer.bytes_after for layer in self.layers)

    @property
    def effective_bits(self) -> float:
        """Bits a weight over the replaced linears, all of `bytes_after` counted."""
        weights = sum(layer.in_features * layer.out_features for layer in self.layers)
        return 8.0 * self.bytes_after / max(1, weights)

    def __str__(self) -> str:
        lines = [
            f"linear layers quantized: {len(self.layers)} ({_size(self.bytes_before)} -> "
            f"{_size(self.bytes_after)}, {self.effective_bits:.2f} bits a weight)",
            f"whole model: {_size(self.model_bytes_before)} -> {_size(self.model_bytes_after)}",
        ]
        if self.skipped:
            lines.append(f"linear layers left as they were: {len(self.skipped)}")
        lines += [f"  {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


@contextlib.contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """A function to call with a name before each of `total` steps; it draws on stderr."""
    if not shown or not total:
        yield lambda name: None
        return
    try:
        import rich.progress
    except ImportError:
        with _plain_bar(total) as step:
            yield step
        return
    with _rich_bar(rich.progress, total) as step:
        yield step


@contextlib.contextmanager
def _rich_bar(progress, total: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    columns = ("quantizing", progress.BarColumn(), progress.MofNCompleteColumn())
    console = Console(stderr=True)
    with progress.Progress(*columns, "{task.description}", console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        numbers = iter(range(total))
        yield lambda name: bar.update(task, completed=next(numbers), description=name)


@contextlib.contextmanager
def _plain_bar(total: int) -> Iterator[Callable[[str], None]]:
    start, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
    numbers = iter(range(1, total + 1))

    def step(name: str) -> None:
        text = f"{start}quantizing {next(numbers)}/{total} {name}"
        print(text, end=end, file=sys.stderr, flush=True)

    try:
        yield step
    finally:
        print(start, end="", file=sys.stderr, flush=True)


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
