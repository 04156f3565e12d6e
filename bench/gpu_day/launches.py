"""A checked call of each kernel, or some where it has several shapes: for compute-sanitizer.

Columns end within a word, rows within a tile. All calls are made, also behind one that fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator

from bench.gpu_day.examples import EXAMPLES, library
from bench.gpu_day.kernels import BACKENDS, listed, shapes_of
from lowbit.bench import check

EXAMPLE = "example"


@dataclasses.dataclass(frozen=True)
class Launch:
    """call: raises when the result is wrong. unsupported: why this GPU cannot make it, if so."""

    op: str
    backend: str
    shape: str
    call: Callable[[], object]
    unsupported: Callable[[], str | None] = lambda: None

    def __str__(self) -> str:
        return f"{self.op} on {self.backend} ({self.shape})"

    def verdict(self) -> str:
        """Right, n/a or FAILED, and why."""
        try:
            if reason := self.unsupported():
                return f"n/a: {reason}"
            self.call()
        except Exception as error:  # whatever a kernel raises is a finding
            return f"FAILED: {type(error).__name__}: {error}"
        return "right"


def main(argv: list[str] | None = None) -> int:
    """1 when a call failed and when there was nothing to call."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.launches")
    parser.add_argument("--small", action="store_true", help="the reference and torch, on the CPU")
    args = parser.parse_args(argv)
    return make(stand_ins() if args.small else on_gpu())


def make(launches: Iterator[Launch]) -> int:
    """Make the calls, each told as it ends; the last line counts them."""
    verdicts = []
    for launch in launches:
        verdicts.append(launch.verdict())
        print(f"{launch}: {verdicts[-1]}", flush=True)
    right, failed, absent = (
        sum(verdict.startswith(word) for verdict in verdicts) for word in ("right", "FAILED", "n/a")
    )
    print(f"{right} calls right, {failed} failed, {absent} n/a")
    return int(failed > 0 or not right)


def on_gpu() -> Iterator[Launch]:
    """Of every kernel of the registry and of the examples."""
    yield from _of_package(listed(BACKENDS))
    ops = functools.cache(library)
    for example in EXAMPLES:
        for shape in (example.few, example.many):
            yield Launch(
                example.name,
                EXAMPLE,
                "x".join(map(str, shape)),
                lambda e=example, s=shape: e.check(e.kernel(ops()), s, "cuda"),
                example.unsupported,
            )


def stand_ins() -> Iterator[Launch]:
    """The same without a GPU: of each op the reference, of each example what torch has."""
    yield from _of_package(listed(("reference",)))
    for example in EXAMPLES:
        call = functools.partial(example.check, example.in_torch, example.few, "cpu")
        yield Launch(example.name, "torch", "x".join(map(str, example.few)), call)


def _of_package(kernels: list[tuple[str, str]]) -> Iterator[Launch]:
    for op, backend in kernels:
        for case in shapes_of(op, backend):
            call = functools.partial(check.check, op, backend, case)
            yield Launch(op, backend, str(case), call)


if __name__ == "__main__":
    sys.exit(main())
