"""Times the kernels of examples/cuda, checked first, in turns with torch's in their place."""

from __future__ import annotations

import argparse
import statistics
import sys

from bench.gpu_day.examples import EXAMPLES, Example, Run, library
from lowbit.bench import sampling
from lowbit.bench.entries import Entry, bytes_of

_SECONDS = 0.5  # of each


def main(argv: list[str] | None = None) -> int:
    """1 when a result was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_day.measure_examples")
    parser.add_argument("--small", action="store_true", help="torch in their place, on the CPU")
    args = parser.parse_args(argv)
    ops = None if args.small else library()
    told = [in_torch(e) if args.small else on_gpu(e, e.kernel(ops)) for e in EXAMPLES]
    print("; ".join(text for text, _ in told))
    return int(not all(right for _, right in told))


def on_gpu(example: Example, kernel: Run) -> tuple[str, bool]:
    """(the figures in one phrase, whether the result was right)."""
    if reason := example.unsupported():
        return f"{example.name}: n/a, {reason}", True
    return figures(example, kernel, example.timed, "cuda", _SECONDS)


def in_torch(example: Example) -> tuple[str, bool]:
    """The same without a GPU, of few elements."""
    return figures(example, example.in_torch, example.few, "cpu", 1e-3)


def figures(
    example: Example, run: Run, shape: tuple[int, ...], device: str, seconds: float
) -> tuple[str, bool]:
    """(the time beside torch's in one phrase, whether the result was right)."""
    name = f"{example.name} {'x'.join(map(str, shape))}"
    try:
        example.check(run, shape, device)
    except AssertionError as error:
        return f"{name}: wrong, not timed: {error}", False
    operands = example.random(*shape, device)
    # Operands take turns, so that each call reads them from memory.
    entries = [Entry(name, call, operands, operands[-1]) for call in (run, example.in_torch)]
    taken = sampling.interleave(entries, seconds, cold=device == "cuda", device=device)
    own, torch_s = (statistics.median(samples.seconds) for samples in taken)
    rate = f"{bytes_of(operands) / own / 1e9:.0f} GB/s"
    if example.operations and device == "cuda":
        rate = f"{example.operations / own / 1e12:.0f} TFLOP/s"
    return f"{name}: {own * 1e6:.1f} us, {rate}, torch {torch_s * 1e6:.1f} us", True


if __name__ == "__main__":
    sys.exit(main())
