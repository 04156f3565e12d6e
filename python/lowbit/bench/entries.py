"""What is timed side by side: a workload, and the entries (our backends and peers) that run it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType

import torch

from lowbit import native, registry
from lowbit.bench import check
from lowbit.bench.cases import BACKWARD, DEQUANTIZE, LINEAR, PACKING, WITHOUT_X, Case
from lowbit.bench.weight_specs import WeightSpec
from lowbit.formats.weights import QuantizedWeight
from lowbit.ops.prepack_weight import prepack

_SEED = 1  # of the activations
# Rows at either end of a weight whose results must be right before anything is timed, and the axis
# of a result on which they lie; the other ops are checked whole.
_CHECKED, _ROW_AXIS = 256, {LINEAR: -1, DEQUANTIZE: 0}
# Columns of a result whose error is measured; all of a large layer would take seconds in float64.
_COLUMNS = 512


@dataclasses.dataclass(frozen=True)
class Layer:
    """A float weight, our quantized one, and what that stands for: shared by the cases on it."""

    original: torch.Tensor
    weight: QuantizedWeight
    plain: torch.Tensor

    @classmethod
    def make(cls, spec: WeightSpec, device: str) -> Layer:
        """The layer of a spec, on a device; the original stays on the CPU."""
        weight = spec.make(0, device)
        return cls(spec.original(0), weight, weight.dequantize())

    @functools.cached_property
    def packed(self) -> QuantizedWeight:
        """The weight as a user of the device's kernels would lay it out."""
        return prepack(self.weight)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A case with its data. prepack: our kernels get the prepacked weight where they read it."""

    case: Case
    layer: Layer
    prepack: bool = True

    @property
    def weight(self) -> QuantizedWeight:
        """Our quantized weight in the canonical layout."""
        return self.layer.weight

    @functools.cached_property
    def args(self) -> tuple:
        """The op's flat arguments with that weight."""
        return self.case.arguments(self.weight, _SEED)

    @property
    def x(self) -> torch.Tensor:
        """The activations (the gradient for the backward op)."""
        return self.args[0]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A way to run a workload: `call(*operands)`; the operands are what stands for the weight.

    weight is the float matrix that the operands stand for: errors of the computation are measured
    against it, errors of the weight against the original.
    Operands that are not plain tensors (a session, packed parameters) need `another`, which makes
    the same operands anew in memory of their own. `nbytes` is the size of the weight where that is
    not the size of the operands: they may also hold a given result. Libraries that run graphs have
    `graph` in place of `another`: graph(count)() is x times each of `count` copies of the weight in
    one run, as in a model, since their threads sleep between runs.
    arithmetic: "fp32", "bf16" or "int8", what multiplies: the rate is a share of that peak. planes:
    multiplications for each product of the matrices; int8 in one plane is quantized activations.
    """

    name: str
    call: Callable[..., torch.Tensor]
    operands: tuple
    weight: torch.Tensor
    context: Callable = contextlib.nullcontext
    another: Callable[[], tuple] | None = None
    graph: Callable[[int], Callable[[], object]] | None = None
    nbytes: int | None = None
    arithmetic: str = "fp32"
    planes: int = 1

    @property
    def operand_bytes(self) -> int:
        """Bytes of the weight, metadata included."""
        if self.nbytes is not None:
            return self.nbytes
        return bytes_of(self.operands)


def bytes_of(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes of the elements of tensors, without what lies between them."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


# mode -> (arithmetic, planes) of our kernels.
_ARITHMETIC = {
    "exact": ("fp32", 1),
    "fp16": ("fp32", 1),
    "bf16": ("bf16", 1),
    "int8x2": ("int8", 2),
}


def own_entry(workload: Workload, backend: str) -> Entry:
    """Our op on one backend. Raises CheckFailure when its result is wrong, before any timing."""
    op, case = registry.OPS[workload.case.op], workload.case
    weight = _weight_for(workload, backend)
    args = case.arguments(weight, _SEED)
    _require_right(workload, backend, args)
    operands = _operands(op.name, weight, args)
    before = 0 if op.name in WITHOUT_X else 1
    head, tail = args[:before], args[before + len(operands) :]
    isa = f" ({native.isa()})" if backend == "cpu" else ""
    call, results, split = op.overload, (), len(operands)
    if op.name in WITHOUT_X:  # the result is so large that page faults of fresh memory take over
        call, results = _into_given_output(op), (op.allocate(*args),)
    arithmetic, planes = _ARITHMETIC[_multiplied_as(case)]
    return Entry(
        f"lowbit {backend}{isa}",
        lambda *given: call(*head, *given[:split], *tail, *given[split:]),
        (*operands, *results),
        workload.layer.plain,
        lambda: registry.use_backend(backend),
        nbytes=bytes_of(operands),
        arithmetic=arithmetic,
        planes=planes,
    )


def _multiplied_as(case: Case) -> str:
    """The mode whose kernel serves a case."""
    if case.mode != "dense":
        return case.mode
    return "bf16" if case.dtype == torch.bfloat16 else "exact"


def _operands(op: str, weight: QuantizedWeight, args: tuple) -> tuple[torch.Tensor | None, ...]:
    """Those of the arguments that stand for the weight."""
    if op in PACKING:
        return args[:1]
    return weight.parts if op == LINEAR else weight.tensors


def _weight_for(workload: Workload, backend: str) -> QuantizedWeight:
    """Prepacked where that was asked for and the backend's kernel reads that layout fastest."""
    op, anywhere = workload.case.op, registry.BACKENDS[backend].device is None
    if not workload.prepack or anywhere or op in PACKING:
        return workload.weight
    packed = workload.layer.packed
    (row,) = (row for row in registry.OPS[op].rows if row.backend == backend)
    fastest = row.covers["layout"][0] == packed.layout
    declined = check.declined(op, backend, workload.case.arguments(packed, _SEED))
    return packed if fastest and declined is None else workload.weight


def _require_right(workload: Workload, backend: str, args: tuple) -> None:
    """Of a large layer the results of its first and last rows: all would take seconds."""
    case, weight = workload.case, workload.weight
    got, n = check.run(case.op, backend, args), weight.shape[0]
    axis = _ROW_AXIS.get(case.op)
    whole = axis is None or n <= 2 * _CHECKED
    for start, stop in [(0, n)] if whole else [(0, _CHECKED), (n - _CHECKED, n)]:
        part = case.arguments(weight if whole else weight.slice_rows(start, stop), _SEED)
        result = got if whole else got.narrow(axis, start, stop - start)
        failure = check.compare(result, check.expected(case.op, part)).failure
        if failure:
            where = "" if whole else f", rows {start} to {stop - 1} of the weight"
            raise check.CheckFailure(f"{case.op} on {backend}, {case}{where}: {failure}")


def _into_given_output(op: registry.Op) -> Callable[..., torch.Tensor]:
    def call(*args):
        op.out_overload(*args)
        return args[-1]

    return call


def peers() -> dict[str, ModuleType]:
    """The adapters of lowbit.bench.peers by name; empty where they are not installed."""
    try:
        package = importlib.import_module("lowbit.bench.peers")
    except ModuleNotFoundError:
        return {}
    modules = pkgutil.iter_modules(package.__path__)
    names = sorted(info.name for info in modules if not info.name.startswith("_"))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def product(op: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """What the op computes from a plain matrix w[N, K]."""
    if op in WITHOUT_X:
        return w
    return torch.matmul(x, w) if op == BACKWARD else torch.nn.functional.linear(x, w)


def errors(workload: Workload, entry: Entry) -> tuple[float, float]:
    """(weight error, compute error): relative root mean squares, the latter on some columns.

    Packed codes are right or wrong, and were checked: they have no compute error.
    """
    op, w = workload.case.op, entry.weight.cpu()
    if op in PACKING:
        return _relative(w.float(), workload.layer.original), 0.0
    with entry.context():
        got = entry.call(*entry.operands).cpu()
    weight_error = _relative(w.float(), workload.layer.original)
    if op not in WITHOUT_X:
        w = (w[:, :_COLUMNS] if op == BACKWARD else w[:_COLUMNS]).double()
        got = got[..., :_COLUMNS].double()
    return weight_error, _relative(got, product(op, workload.x.cpu().double(), w))


def _relative(got: torch.Tensor, want: torch.Tensor) -> float:
    if not want.numel():
        return 0.0
    return ((got - want).norm() / want.norm()).item()


def entry_of(workload: Workload, name: str) -> tuple[str, Entry | str]:
    """(name to show, the entry of a backend or peer, or the reason why it cannot run)."""
    adapter = peers().get(name)
    if adapter:
        known = workload.case.op in adapter.OPS
        reason = adapter.unsupported(workload) if known else "it has no such op"
        return adapter.NAME, reason or adapter.prepare(workload)
    reason = check.unavailable(name) or check.declined(workload.case.op, name, workload.args)
    return f"lowbit {name}", reason or own_entry(workload, name)
