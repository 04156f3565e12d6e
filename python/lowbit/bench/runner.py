"""Times entries side by side: checked first, interleaved A B A B, beside probes of the limits."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator

import torch

from lowbit import registry
from lowbit.bench import check
from lowbit.bench.cases import DEQUANTIZE, LINEAR, Case
from lowbit.bench.entries import Entry, Layer, Workload, entry_of, errors, peers
from lowbit.bench.load import Waiting
from lowbit.bench.probe import Probe, timed
from lowbit.bench.weight_specs import WeightSpec
from lowbit.errors import dtype_name

# (N, K) of the linear layers of 7B and 8B language models.
LAYERS = ((4096, 4096), (11008, 4096), (4096, 11008), (14336, 4096), (1024, 4096))
ROWS = (1, 4, 16, 128)
QUICK_LAYERS, QUICK_ROWS = ((4096, 4096),), (1, 16)
BASELINE = "torch fp32"
# Up to this many rows the weight is read from memory for every call of a real model: copies whose
# bytes are beyond the caches take turns.
_DECODE_ROWS = 16
_COLD_BYTES = 256 << 20
_SAMPLE_SECONDS = 1e-3
_MIN_SAMPLES, _MAX_SAMPLES = 5, 2000
# Two probes around a case that differ by more than this mark its rows.
_NOISE = 0.15
# Of the threads' time; on an idle machine they wait for less than a hundredth of it.
_CROWDED = 0.05


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `lowbit bench` is asked to time."""

    op: str = LINEAR
    layers: tuple[tuple[int, int], ...] = LAYERS
    rows: tuple[int, ...] = ROWS
    bits: int = 4
    group_size: int = 128
    dtype: torch.dtype = torch.float32
    mode: str = "exact"
    symmetric: bool = False
    backends: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    min_time: float = 0.5
    device: str = "cpu"
    quick: bool = False

    def cases(self, n: int, k: int) -> list[Case]:
        """The cases of a layer; dequantize_weight has no rows."""
        zeros = "midpoint" if self.symmetric else "code"
        block_k = 0 if self.group_size == -1 else self.group_size
        spec = WeightSpec(n, k, self.bits, block_k, zeros=zeros, source="quantized")
        rows = self.rows[:1] if self.op == DEQUANTIZE else self.rows
        return [Case(self.op, spec, (m,), self.dtype, self.mode) for m in rows]

    def names(self) -> tuple[str, ...]:
        """The backends and peers to time."""
        return self.backends or default_names(self.op, self.device)


def default_names(op: str, device: str) -> tuple[str, ...]:
    """Backends with a kernel of the op, best first, and the peers that have the op.

    The reference is left out where a native kernel runs: it takes most of the time to say little.
    """
    names = [row.backend for row in registry.OPS[op].rows]
    if any(registry.BACKENDS[n].device == device and not check.unavailable(n) for n in names):
        names.remove("reference")
    return (*names, *(name for name, adapter in peers().items() if op in adapter.OPS))


@dataclasses.dataclass
class Row:
    """A line of the table. `note` says why there are no samples, or what to mind about them."""

    case: str
    backend: str
    threads: int
    cold: bool = False
    samples: list[float] = dataclasses.field(default_factory=list)  # seconds a call
    bytes: int = 0  # weight, input and result, each once
    flops: int = 0
    bits: float = 0.0
    weight_error: float = 0.0
    compute_error: float = 0.0
    bandwidth: float = 0.0  # probed, bytes a second
    peak: float = 0.0  # probed, float32 operations a second
    speedup: float | None = None  # over torch fp32 in the same run
    waited: float | None = None  # share of the threads' time without a core, with all of the case
    note: str = ""
    failed: bool = False

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Interquartile range in seconds."""
        low, _, high = statistics.quantiles(self.samples, n=4)
        return high - low


def run(plan: Plan) -> Iterator[Row]:
    """The rows of a plan, case by case. A wrong result gives a row that failed and is not timed."""
    probe = Probe(plan.device, plan.quick)
    before = torch.get_num_threads()
    try:
        for threads in plan.threads or (before,):
            torch.set_num_threads(threads)
            peak = probe.fp32_peak()
            for n, k in plan.layers:
                yield from _run_layer(plan, n, k, probe, peak)
    finally:
        torch.set_num_threads(before)


def _run_layer(plan: Plan, n: int, k: int, probe: Probe, peak: float) -> Iterator[Row]:
    cases = plan.cases(n, k)
    layer = Layer.make(cases[0].weight, plan.device)
    for case in cases:
        yield from _run_case(plan, Workload.make(case, layer), probe, peak)


def _run_case(plan: Plan, workload: Workload, probe: Probe, peak: float) -> list[Row]:
    timed_rows, other_rows, chosen = [], [], []
    for name in plan.names():
        row = Row(label(workload.case), name, torch.get_num_threads(), peak=peak)
        entry = _prepare(workload, name, row)
        (other_rows if entry is None else timed_rows).append(row)
        chosen += [] if entry is None else [entry]
    decode = workload.case.m <= _DECODE_ROWS and workload.case.op != DEQUANTIZE
    cold = decode and not plan.quick
    bandwidths = [probe.bandwidth()]
    waiting = Waiting()
    samples = measure(chosen, plan.min_time, cold, plan.device)
    share = waiting.share(torch.get_num_threads())
    bandwidths.append(probe.bandwidth())
    note = _warning(bandwidths, share)
    for row, taken in zip(timed_rows, samples, strict=True):
        row.samples, row.cold, row.bandwidth = taken, cold, sum(bandwidths) / 2
        row.waited, row.note = share, note
    _compare_with_baseline(timed_rows)
    return timed_rows + other_rows


def _warning(bandwidths: list[float], waited: float | None) -> str:
    """Why the samples of a case are worth less; empty if nothing was seen."""
    found = []
    if waited is not None and waited > _CROWDED:
        found.append(f"crowded machine: threads waited {waited:.0%} of the time for a core")
    if max(bandwidths) > (1 + _NOISE) * min(bandwidths):
        found.append("noisy: the bandwidth probes around it differ")
    return "; ".join(found)


def _prepare(workload: Workload, name: str, row: Row) -> Entry | None:
    """The entry of a name, its facts written into the row; None with a note if it cannot run."""
    try:
        row.backend, entry = entry_of(workload, name)
    except check.CheckFailure as failure:
        row.note, row.failed = f"wrong result, not timed: {failure}", True
        return None
    if isinstance(entry, str):
        row.note = f"n/a: {entry}"
        return None
    row.backend, row.flops = entry.name, workload.case.flops
    outside = workload.case.bytes - workload.case.weight.nbytes
    row.bytes = entry.operand_bytes + outside
    row.bits = 8.0 * entry.operand_bytes / max(1, entry.weight.numel())
    row.weight_error, row.compute_error = errors(workload, entry)
    return entry


def _compare_with_baseline(rows: list[Row]) -> None:
    baseline = next((row for row in rows if row.backend == BASELINE), None)
    for row in rows if baseline else ():
        row.speedup = baseline.median / row.median


def label(case: Case) -> str:
    """M, N, K, codes, group and dtype of a case."""
    w = case.weight
    m = "" if case.op == DEQUANTIZE else f"M={case.m} "
    mode = "" if case.mode == "exact" else f" {case.mode}"
    return f"{m}N={w.n} K={w.k} {w.bits}b g{w.block_k or w.k} {dtype_name(case.dtype)}{mode}"


def measure(
    entries: list[Entry], min_time: float, cold: bool, device: str = "cpu"
) -> list[list[float]]:
    """Samples (seconds a call) of each entry, taken in turns so that noise meets all alike."""
    works = [_work(entry, cold) for entry in entries]
    repeats, samples, spent = [], [[] for _ in entries], [0.0] * len(entries)
    for entry, work in zip(entries, works, strict=True):
        with entry.context():
            work()
            once = timed(work, 1, device)
        repeats.append(max(1, round(_SAMPLE_SECONDS / max(once, 1e-9))))
    while any(map(_wants_more, samples, spent, [min_time] * len(entries))):
        for i, (entry, work) in enumerate(zip(entries, works, strict=True)):
            if not _wants_more(samples[i], spent[i], min_time):
                continue
            with entry.context():
                seconds = timed(work, repeats[i], device)
            samples[i].append(seconds)
            spent[i] += seconds * repeats[i]
    return samples


def _wants_more(samples: list[float], spent: float, min_time: float) -> bool:
    if len(samples) < _MIN_SAMPLES:
        return True
    return spent < min_time and len(samples) < _MAX_SAMPLES


def _work(entry: Entry, cold: bool) -> Callable[[], object]:
    """A call of the entry; each call takes the next copy of the operands when cold."""
    copies = [entry.operands]
    if cold:
        count = -(-_COLD_BYTES // max(1, entry.operand_bytes))
        more = range(min(count, 256) - 1)
        copies += [tuple(t if t is None else t.clone() for t in entry.operands) for _ in more]
    turn = 0

    def work():
        nonlocal turn
        turn = (turn + 1) % len(copies)
        return entry.call(*copies[turn])

    return work
