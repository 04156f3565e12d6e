"""Times entries side by side: checked first, interleaved A B A B, beside probes of the limits."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import torch

from lowbit.bench import check, gpu, overhead, sampling
from lowbit.bench.cases import AXES, Case
from lowbit.bench.entries import Entry, Layer, Workload, entry_of, errors, peers
from lowbit.bench.load import Waiting
from lowbit.bench.overhead import OVERHEAD
from lowbit.bench.plan import Plan, label
from lowbit.bench.probe import Probe, peak_of
from lowbit.bench.rows import Row
from lowbit.bench.weight_specs import WeightSpec

BASELINE = "torch fp32"
# Of the threads' time; on an idle machine they wait for less than a hundredth of it.
_CROWDED = 0.05

Peaks = dict[int, dict[str, float]]  # threads -> instruction -> operations a second


def run(plans: Sequence[Plan], peaks: Peaks) -> Iterator[Row]:
    """The rows of plans for one device. A wrong result gives a row that failed and is not timed.

    Plans that share a weight are run one after the other on it, since making it takes seconds. The
    peaks of thread counts that are not in `peaks` yet are measured and put there.
    """
    timed = [plan for plan in plans if plan.op != OVERHEAD]
    probe = Probe(timed[0].device, timed[0].quick) if timed else None
    for weight in dict.fromkeys(weight for plan in timed for weight in plan.weights()):
        layer = Layer.make(weight, timed[0].device)
        for plan in timed:
            if weight in plan.weights():
                yield from _run_weight(plan, weight, layer, probe, peaks)
    for plan in plans:
        if plan.op == OVERHEAD:
            yield from overhead.run(plan)


def _run_weight(
    plan: Plan, weight: WeightSpec, layer: Layer, probe: Probe, peaks: Peaks
) -> Iterator[Row]:
    before = torch.get_num_threads()
    try:
        for threads in plan.threads or (before,):
            torch.set_num_threads(threads)
            if threads not in peaks:
                peaks[threads] = probe.peaks()
            for cases in plan.groups(weight):
                yield from _run_group(plan, cases, layer, probe, peaks[threads])
    finally:
        torch.set_num_threads(before)


def _run_group(
    plan: Plan, cases: list[Case], layer: Layer, probe: Probe, peaks: dict[str, float]
) -> list[Row]:
    """Our backends in each mode and the peers once, all interleaved."""
    rows, entries = [], []
    workloads = [Workload(case, layer, plan.prepack) for case in cases]
    for name in plan.names():
        for workload in workloads[:1] if name in peers() else workloads:
            row = _row(plan, workload, "" if name in peers() else workload.case.mode)
            entry = _prepare(workload, name, row, peaks)
            rows.append(row)
            entries.append(entry)
    ready = [(row, entry) for row, entry in zip(rows, entries, strict=True) if entry]
    _sample(plan, [entry for _, entry in ready], [row for row, _ in ready], probe)
    return sorted(rows, key=lambda row: not row.samples)


def _row(plan: Plan, workload: Workload, mode: str) -> Row:
    case, weight = workload.case, workload.case.weight
    return Row(
        label(case),
        "",
        torch.get_num_threads(),
        op=case.op,
        mode=mode if "mode" in AXES[case.op] else "",
        m=case.m if "rows" in AXES[case.op] else 0,
        n=weight.n,
        k=weight.k,
        code_bits=weight.bits,
        run=plan.run,
        gpu=gpu.described() if plan.device == "cuda" else "",
        cold=plan.cold(case),
        flops=case.flops,
    )


def _prepare(workload: Workload, name: str, row: Row, peaks: dict[str, float]) -> Entry | None:
    """The entry of a name, its facts written into the row; None with a note if it cannot run."""
    try:
        row.backend, entry = entry_of(workload, name)
    except check.CheckFailure as failure:
        row.backend, row.failed = f"lowbit {name}", True
        row.note = f"wrong result, not timed: {failure}"
        return None
    if isinstance(entry, str):
        row.note = f"n/a: {entry}"
        return None
    row.backend, row.arithmetic = entry.name, entry.arithmetic
    row.operations, row.peak = row.flops * entry.planes, peak_of(entry.arithmetic, peaks)
    row.bytes = entry.operand_bytes + workload.case.bytes_beside_weight
    row.bits = 8.0 * entry.operand_bytes / max(1, entry.weight.numel())
    row.weight_error, row.compute_error = errors(workload, entry)
    return entry


def _sample(plan: Plan, entries: list[Entry], rows: list[Row], probe: Probe) -> None:
    """Take the samples of a group's entries and write them into their rows."""
    if not rows:
        return
    cold = rows[0].cold
    around = [probe.bandwidth()]
    waiting = Waiting()
    taken = sampling.interleave(
        entries,
        plan.min_time,
        cold=cold,
        device=plan.device,
        read=probe.bandwidth if cold and probe.native else None,
    )
    waited = waiting.share(torch.get_num_threads())
    around.append(probe.bandwidth())
    for row, samples in zip(rows, taken, strict=True):
        row.samples, row.probes, row.dropped = samples.seconds, samples.probes, samples.dropped
        row.bandwidth = statistics.median(samples.probes or around)
        row.waited = waited
        row.note = "; ".join(part for part in (_note(row, around), samples.note) if part)
    _compare_with_baseline(rows)


def _note(row: Row, around: list[float]) -> str:
    """Why the samples of a row are worth less; empty if nothing was seen."""
    found = []
    if row.waited is not None and row.waited > _CROWDED:
        found.append(f"crowded machine: threads waited {row.waited:.0%} of the time for a core")
    if row.dropped and len(row.samples) < sampling.MIN_SAMPLES:
        found.append(f"noisy: {row.dropped} samples dropped, their bandwidth probes differ")
    elif not row.probes and not sampling.agree(*around):
        found.append("noisy: the bandwidth probes around it differ")
    return "; ".join(found)


def _compare_with_baseline(rows: list[Row]) -> None:
    timed = [row for row in rows if row.samples]
    baseline = next((row for row in timed if row.backend == BASELINE), None)
    for row in timed if baseline else ():
        row.speedup = baseline.median / row.median
