"""The kernels of examples/cuda: operands, what torch has in their place, what must come out.

The last operand of every call is written.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch

from tests.cuda_build import build_examples
from tests.example_cases import empty, exact_product, halves, integers, scaled

_FACTOR = 0.3

Run = Callable[..., Any]  # takes the operands


@dataclasses.dataclass(frozen=True)
class Example:
    """kernel: from the loaded library's ops, what takes the operands.

    exact, random: operands of a shape on a device, the former with a result that is known to the
    bit, `expected` of them. few, many: shapes of few elements, and of so many that every
    multiprocessor has work. timed: the shape of docs/performance.md; operations: those it takes.
    capability: of the only GPUs that it runs on.
    """

    name: str
    kernel: Callable[[Any], Run]
    in_torch: Run
    exact: Callable[..., tuple]
    random: Callable[..., tuple]
    expected: Callable[..., torch.Tensor]
    few: tuple[int, ...]
    many: tuple[int, ...]
    timed: tuple[int, ...]
    operations: int = 0
    capability: tuple[int, int] | None = None

    def unsupported(self) -> str | None:
        """Why it cannot run on this GPU; None if it can."""
        if self.capability in (None, torch.cuda.get_device_capability()):
            return None
        got = ".".join(map(str, torch.cuda.get_device_capability()))
        return f"it needs compute capability {'.'.join(map(str, self.capability))}, got {got}"

    def check(self, run: Run, shape: tuple[int, ...], device: str) -> None:
        """Raises AssertionError when an element is not what it must be."""
        operands = self.exact(*shape, device)
        run(*operands)
        wrong = int((operands[-1].cpu() != self.expected(*operands[:-1])).sum())
        if wrong:
            raise AssertionError(f"{wrong} of {operands[-1].numel()} elements are wrong")


def _vector(count: int, device: str) -> tuple:
    x = torch.randn(count).bfloat16().to(device)
    return x, torch.full_like(x, 77.0)


def _matrices(fill: Callable) -> Callable[..., tuple]:
    def make(m: int, n: int, k: int, device: str) -> tuple:
        return fill(m, k, device), fill(n, k, device), empty(m, n, device)

    return make


def _gemm(name: str, capability: tuple[int, int] | None = None) -> Example:
    return Example(
        name,
        kernel=lambda ops: getattr(ops, name),
        in_torch=lambda a, b, c: torch.matmul(a, b.T, out=c),
        exact=_matrices(integers),
        random=_matrices(halves),
        expected=exact_product,
        few=(130, 70, 264),
        many=(1601, 3499, 40),
        timed=(4096, 4096, 4096),
        operations=2 * 4096**3,
        capability=capability,
    )


EXAMPLES = (
    Example(
        "vector_scale",
        kernel=lambda ops: lambda x, y: ops.vector_scale(x, _FACTOR, y),
        in_torch=lambda x, y: torch.mul(x, _FACTOR, out=y),
        exact=_vector,
        random=_vector,
        expected=lambda x: scaled(x, _FACTOR),
        few=(4099,),
        many=(1_000_003,),
        timed=(1 << 26,),
    ),
    _gemm("tiled_gemm"),
    _gemm("tiled_gemm_sm90", capability=(9, 0)),
)


def library() -> Any:
    """The examples' ops, built for the architecture of LOWBIT_CUDA_ARCHS."""
    torch.ops.load_library(build_examples(os.environ["LOWBIT_CUDA_ARCHS"]))
    return torch.ops.lowbit_examples
