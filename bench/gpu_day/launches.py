"""One checked call of each kernel on a shape with a tail: what compute-sanitizer looks at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from lowbit import registry
from lowbit.bench import check
from lowbit.bench.cases import CASES, Case

_BACKENDS = ("cuda", "triton")


def main(argv: list[str] | None = None) -> int:
    """Raises CheckFailure on a wrong result; 1 where there was no kernel to call."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.launches")
    parser.add_argument("--backends", default=",".join(_BACKENDS))
    backends = parser.parse_args(argv).backends.split(",")
    called = []
    for op, backend in kernels(backends):
        case = case_of(op, backend)
        check.check(op, backend, case)
        called.append(f"{op} on {backend} ({case})")
    print(f"right: {', '.join(called)}" if called else f"no kernel on {', '.join(backends)}")
    return int(not called)


def kernels(backends: list[str]) -> Iterator[tuple[str, str]]:
    """(op, backend) of every kernel that can run here."""
    for op, definition in registry.OPS.items():
        for row in definition.rows:
            if row.backend in backends and not check.unavailable(row.backend):
                yield op, row.backend


def case_of(op: str, backend: str) -> Case:
    """A case that the kernel covers; where it can be, one whose columns end within a word."""
    device = check.device_of(backend)
    in_order = sorted(CASES[op], key=lambda case: case.weight.k % 32 == 0)
    return next(c for c in in_order if not check.declined(op, backend, c.make(0, device)))


if __name__ == "__main__":
    sys.exit(main())
