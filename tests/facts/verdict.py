"""Whether the kernels of a source keep their limits, and whether every source has limits."""

from collections.abc import Iterable

from tests.facts.limits import Entry, is_stub, violations
from tests.facts.sass import KernelFacts
from tests.facts.table import HEADER, Facts, facts_row, limits_row, markdown


def _of_kernel(arch: str, facts: KernelFacts, entries: list[Entry]) -> list[str]:
    known = [entry for entry in entries if entry.matches(facts)]
    here = [entry for entry in known if arch in entry.archs]
    where = f"{facts.name} on sm_{arch}"
    if not known:
        return [f"{where} must have limits in tests/facts/limits.py, got none"]
    if not here and not is_stub(facts):
        return [
            f"{where} must do nothing there, as its limits leave the architecture out, "
            f"got {facts.opcodes.total()} instructions"
        ]
    failures = []
    for entry in here:
        if sentences := violations(entry, facts):
            rows = markdown(HEADER, [facts_row(entry, arch, [facts]), limits_row(entry)])
            failures.append("\n".join([f"{where}:", *sentences, rows]))
    return failures


def failures(arch: str, kernels: Iterable[KernelFacts], entries: Iterable[Entry]) -> list[str]:
    """What is wrong with the kernels that one source has for one architecture.

    Each has the facts beside the limits. A kernel without limits is wrong, and so are limits with
    more or fewer kernels than they say.
    """
    kernels, entries = list(kernels), list(entries)
    found = [failure for facts in kernels for failure in _of_kernel(arch, facts, entries)]
    for entry in entries:
        count = sum(map(entry.matches, kernels))
        if arch in entry.archs and count != entry.instances:
            found.append(
                f"{entry.kernel} on sm_{arch} must have {entry.instances} instances, got {count}"
            )
    return found


def without_limits(sources: Iterable[str], entries: Iterable[Entry]) -> list[str]:
    limited = {entry.source for entry in entries}
    return [
        f"{source} must have an entry in tests/facts/limits.py, got none"
        for source in sources
        if source not in limited
    ]


def all_failures(facts: Facts, entries: Iterable[Entry]) -> list[str]:
    """What is wrong with the kernels of all sources; those without an entry are named once."""
    entries = list(entries)
    found = without_limits(dict.fromkeys(source for source, _ in facts), entries)
    for (source, arch), kernels in facts.items():
        if own := [entry for entry in entries if entry.source == source]:
            found += failures(arch, kernels, own)
    return found
