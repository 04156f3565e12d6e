"""The one comparison: a backend's result of a case against the float64 oracle.

Ops in `BITWISE` must equal the oracle bit for bit (any NaN equals any NaN). For the others

    err(got, oracle) <= c * err(plain torch in the mode's own precision, oracle) + ulp

with c = 2 for the root mean square and c = 3 for the largest absolute error; `ulp` is one step of
the output dtype at the oracle's largest magnitude. Elements that are not finite must be the same
NaN or infinity in both, in the mode bf16 either of them. Where a mode fixes every bit (int8x2
without a low-rank pair) the result must also equal the reference bit for bit.

Outputs are filled with NaN (or the largest number, where NaN is expected) before the call and lie
in a guard band; inputs and band must not change.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch

from lowbit import registry
from lowbit.bench.oracle import Expected, expected
from lowbit.errors import dtype_name

BITWISE = frozenset({"dequantize_weight", "prepack_weight", "unpack_weight"})
# Elements around the output; odd, so that the output is not aligned to a vector.
_GUARD = 33


class CheckFailure(AssertionError):
    """A result that breaks the op's contract."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The errors of a result, their limits, and the first element beyond them."""

    max_abs: float
    rms: float
    limit_abs: float
    limit_rms: float
    scale: float  # root mean square of the oracle
    failure: str | None

    @property
    def relative(self) -> float:
        """The root mean square of the error divided by that of the oracle."""
        return self.rms / self.scale if self.scale else self.rms


def check(op: str, backend: str, case: Any, seed: int = 0) -> Comparison:
    """Run the case on the backend and compare the result with the oracle.

    Raises CheckFailure when the contract is broken, and also when the comparison would accept a
    result with one wrong element: a check that cannot fail proves nothing.
    """
    got = run(op, backend, case.make(seed, device_of(backend)))
    want = expected_of(case, seed)
    comparison = compare(got, want)
    if comparison.failure:
        raise CheckFailure(f"{op} on {backend}, case {case}, seed {seed}: {comparison.failure}")
    if got.numel() and compare(perturb(got, want), want).failure is None:
        raise CheckFailure(f"{op}, case {case}: the comparison accepts one wrong element")
    return comparison


def device_of(backend: str) -> str:
    """The device type that a backend is checked on."""
    return registry.BACKENDS[backend].device or "cpu"


def unavailable(backend: str) -> str | None:
    """Why the backend cannot run on this machine, with the remedy; None if it can."""
    return registry.BACKENDS[backend].missing(torch.device(device_of(backend)))


def declined(op: str, backend: str, args: tuple) -> str | None:
    """Why the backend's capability row does not cover the call; None if it does."""
    choice = registry.OPS[op].choose(registry.OPS[op].problem(*args), backend)
    return None if choice.backend else choice.passed_over.get(backend, "it has no kernel of the op")


def run(op: str, backend: str, args: tuple) -> torch.Tensor:
    """The op's result on a backend, written into a poisoned output within a guard band."""
    definition = registry.OPS[op]
    like = definition.allocate(*args)
    poison = _poison(like.dtype, args)
    buffer = like.new_full((like.numel() + 2 * _GUARD,), poison)
    out = buffer[_GUARD : _GUARD + like.numel()].view(like.shape)
    before = [_memory(t).clone() for t in args if isinstance(t, torch.Tensor)]
    with registry.use_backend(backend):
        definition.out_overload(*args, out)
    after = [_memory(t) for t in args if isinstance(t, torch.Tensor)]
    if not all(map(torch.equal, before, after)):
        raise CheckFailure(f"{op} on {backend} changed one of its inputs")
    band = torch.cat([buffer[:_GUARD], buffer[_GUARD + like.numel() :]])
    if not same_bits(band, torch.full_like(band, poison)).all():
        raise CheckFailure(f"{op} on {backend} wrote outside its output")
    return out


def _poison(dtype: torch.dtype, args: tuple) -> float:
    if not dtype.is_floating_point:
        return torch.iinfo(dtype).max
    return torch.finfo(dtype).max if _expects_nan(args) else math.nan


def _expects_nan(args: tuple) -> bool:
    floats = (t for t in args if isinstance(t, torch.Tensor) and t.is_floating_point())
    return any(not torch.isfinite(t.float()).all() for t in floats)


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """All bytes of a tensor's storage: those around a view too."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


@functools.lru_cache(maxsize=4096)  # all backends and instruction sets share it
def expected_of(case: Any, seed: int) -> Expected:
    """The expectation of a case."""
    return expected(case.op, case.make(seed))


def compare(got: torch.Tensor, want: Expected) -> Comparison:
    """Measure a result against its expectation; `failure` says what is wrong and where."""
    got = got.cpu()
    like = want.oracle if want.plain is None else want.plain
    if (got.shape, got.dtype) != (like.shape, like.dtype):
        kinds = [f"{dtype_name(t.dtype)} {list(t.shape)}" for t in (got, like)]
        failure = f"got {kinds[0]}, wanted {kinds[1]}"
        return Comparison(math.inf, math.inf, 0.0, 0.0, 0.0, failure)
    if want.plain is None:
        return _compare_bits(got, want.oracle)
    rounded = want.oracle.to(got.dtype)
    finite = torch.isfinite(rounded)
    oracle = torch.where(finite, want.oracle, 0.0)
    error = torch.where(finite, (got.double() - oracle).abs(), 0.0)
    error = torch.where(finite & ~torch.isfinite(got), math.inf, error)
    plain = torch.where(finite, (want.plain.double() - oracle).abs(), 0.0)
    step = _ulp(oracle.abs().max().item() if oracle.numel() else 0.0, got.dtype)
    # Orders of summation differ, and in the largest of many errors more than in their mean.
    limits = [3.0 * _largest(plain) + step, 2.0 * _rms(plain) + step]
    errors = [norm(error) for norm in (_largest, _rms)]
    wrong = torch.isfinite(got) if want.any_nonfinite else ~same_bits(got, rounded)
    bad = torch.where(finite, error > limits[0], wrong)
    if not bad.any() and errors[1] > limits[1]:
        bad = error == errors[0]  # beyond in the mean only: show the worst element
    wanted = want.oracle
    if want.bits is not None and not bad.any():
        bad, wanted = ~same_bits(got, want.bits), want.bits
    found = _describe(bad, got, wanted, errors, limits) if bad.any() else None
    return Comparison(*errors, *limits, _rms(oracle), found)


def _compare_bits(got: torch.Tensor, oracle: torch.Tensor) -> Comparison:
    bad = ~same_bits(got, oracle)
    error = torch.where(bad, (got.double() - oracle.double()).abs(), 0.0)
    errors = [_largest(error), _rms(error)]
    found = _describe(bad, got, oracle, errors, [0.0, 0.0]) if bad.any() else None
    finite = torch.where(torch.isfinite(oracle), oracle.double(), 0.0)
    return Comparison(*errors, 0.0, 0.0, _rms(finite), found)


def _describe(bad, got, oracle, errors, limits) -> str:
    first = tuple(bad.nonzero()[0].tolist())
    return (
        f"{int(bad.sum())} of {bad.numel()} elements are wrong; max abs error {errors[0]:.3g} "
        f"(limit {limits[0]:.3g}), rms error {errors[1]:.3g} (limit {limits[1]:.3g}); first at "
        f"{list(first)}: got {got[first].item()!r}, wanted {oracle[first].item()!r}"
    )


def perturb(got: torch.Tensor, want: Expected) -> torch.Tensor:
    """A copy with the last element off by four tolerances (by one bit where bits must agree)."""
    wrong = got.cpu().clone(memory_format=torch.contiguous_format)
    flat, last = wrong.view(-1), wrong.numel() - 1
    if not torch.isfinite(flat[last]):
        flat[last] = 0.0
    elif want.plain is None or want.bits is not None:
        flat.view(_INTEGERS[wrong.element_size()])[last] ^= 1
    else:
        # Towards zero: away from it the largest element could leave the dtype's range.
        step = 4.0 * compare(got, want).limit_abs
        flat[last] -= math.copysign(step, flat[last].item())
    return wrong


def same_bits(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one dtype hold the same bits, or both a NaN."""
    view = _INTEGERS[a.element_size()]
    same = a.contiguous().view(view) == b.contiguous().view(view)
    return same | (torch.isnan(a) & torch.isnan(b))


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _largest(error: torch.Tensor) -> float:
    return error.max().item() if error.numel() else 0.0


def _rms(values: torch.Tensor) -> float:
    largest = _largest(values.abs())
    if largest in (0.0, math.inf):
        return largest
    return largest * (values / largest).square().mean().sqrt().item()


def _ulp(magnitude: float, dtype: torch.dtype) -> float:
    info = torch.finfo(dtype)
    exponent = math.frexp(max(magnitude, info.smallest_normal))[1] - 1
    return info.eps * 2.0**exponent
