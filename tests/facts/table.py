"""The facts of the kernels beside their limits, as tables."""

from collections.abc import Callable, Iterable

from tests.facts.gpus import GPUS, predict
from tests.facts.limits import ENTRIES, Entry
from tests.facts.sass import KernelFacts

# (source, architecture) -> the kernels of that binary.
Facts = dict[tuple[str, str], list[KernelFacts]]
HEADER = (
    "kernel", "instances", "sm", "registers", "stack", "spills", "shared", "blocks of an SM",
    "instructions", "hot loop", "per MMA",
)  # fmt: skip


def _span(values: Iterable[float]) -> str:
    least, most = min(values := list(values)), max(values)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def facts_row(entry: Entry, arch: str, kernels: list[KernelFacts]) -> list[str]:
    """A row of the table for some instances of a kernel: what the least and the most have."""

    def span(of: Callable[[KernelFacts], float]) -> str:
        return _span(map(of, kernels))

    loops = [kernel.loop for kernel in kernels if kernel.loop]
    per_mma = [loop.per_mma for loop in loops if loop.mma]
    fits = [entry.occupancy(kernel) for kernel in kernels]
    limits = sorted({limit for each in fits for limit in each.limits})
    return [
        kernels[0].name if len(kernels) == 1 else kernels[0].name.partition("<")[0],
        str(len(kernels)),
        arch,
        span(lambda kernel: kernel.registers),
        span(lambda kernel: kernel.stack),
        span(lambda kernel: kernel.spill_stores + kernel.spill_loads),
        span(lambda kernel: kernel.shared + entry.dynamic_shared),
        f"{_span(each.blocks for each in fits)} ({', '.join(limits)})",
        span(lambda kernel: kernel.opcodes.total()),
        _span(loop.instructions for loop in loops) if loops else "none",
        _span(round(each, 1) for each in per_mma) if per_mma else "no MMA",
    ]


def limits_row(entry: Entry) -> list[str]:
    per_mma = "any" if entry.per_mma is None else f"<= {entry.per_mma:g}"
    shared = f"<= {entry.static_shared + entry.dynamic_shared}"
    return [
        f"limits of {entry.kernel}", str(entry.instances), " ".join(entry.archs),
        f"<= {entry.registers}", "0", "0", shared, f">= {entry.blocks}", "any", "any", per_mma,
    ]  # fmt: skip


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def facts_table(facts: Facts) -> str:
    """One line for each kernel and architecture."""
    rows = []
    for entry in ENTRIES:
        rows.append(limits_row(entry))
        for arch in (a for source, a in facts if source == entry.source and a in entry.archs):
            kernels = [k for k in facts[entry.source, arch] if entry.matches(k)]
            if kernels:
                rows.append(facts_row(entry, arch, kernels))
    return markdown(HEADER, rows)


def predictions_table(archs: Iterable[str]) -> str:
    """The least time of each entry's problem on each GPU: bytes and operations at their peaks."""
    gpus = [gpu for gpu in GPUS if gpu.arch in archs]
    rows = []
    for entry in ENTRIES:
        row = [entry.kernel.partition("<")[0], entry.work.problem]
        for gpu in gpus:
            prediction = predict(entry.work, gpu) if gpu.arch in entry.archs else None
            row.append(
                f"{prediction.microseconds:.1f} us, {prediction.bound}" if prediction else ""
            )
        rows.append(row)
    return markdown(["kernel", "problem", *(gpu.name for gpu in gpus)], rows)
