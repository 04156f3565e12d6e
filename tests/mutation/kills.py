"""The table of kills: what noticed each mutant, or why nothing could."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.mutation.kernels import KERNELS
from tests.mutation.mutants import Kill
from tests.mutation.programs import CRASH

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("kills.json")
INVALID = "cannot run"  # how the words of a mutant begin that is no program
# Of entries of the table; those of survivors have `equivalent` in place of the last three.
FIELDS = ("id", "what", "build", "seeds", "words")


def load() -> dict[str, dict]:
    return {entry["id"]: entry for entry in json.loads(TABLE.read_text())}


def save(table: dict[str, dict]) -> None:
    """One mutant a line, sorted: a change of the table is read as its difference."""
    lines = [json.dumps(table[id], ensure_ascii=False) for id in sorted(table, key=_natural)]
    TABLE.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n")


def _natural(id: str) -> tuple:
    place, number = id.rsplit(":", 1)
    return place, int(number)


def every_mutant(names: Iterable[str] | None = None) -> dict[str, tuple[str, str]]:
    """Id -> (kernel, what it changes), of these kernels or of all."""
    return {m.id: (name, m.what) for name in names or KERNELS for m in KERNELS[name].mutants()}


def part(table: dict[str, dict], names: Iterable[str]) -> dict[str, dict]:
    """What the table says of the texts of these kernels."""
    texts = {text for name in names for text in KERNELS[name].texts}
    return {id: entry for id, entry in table.items() if id.partition(":")[0] in texts}


def kill_of(entry: dict) -> Kill | None:
    return Kill(entry["build"], tuple(entry["seeds"]), entry["words"]) if "build" in entry else None


# ---- does the table fit the texts? ----


def disagreements(table: dict[str, dict], mutants: dict[str, tuple[str, str]]) -> list[str]:
    """A sentence for each mutant without a verdict, or verdict without a mutant or a proof."""
    found = []
    for id, (_, what) in mutants.items():
        if id not in table:
            found.append(f"{id} has no recorded verdict: {what}; run with --record")
        elif table[id]["what"] != what:
            found.append(f"{id} was recorded for another text: {table[id]['what']}, now {what}")
    for id, entry in table.items():
        if id not in mutants:
            found.append(f"{id} is in the table but not in a kernel's text")
        elif entry.get("words", "").startswith(INVALID):
            found.append(f"{id} cannot run and proves nothing: {entry['words']}")
        elif "build" not in entry and len(entry.get("equivalent", "").split()) < 3:
            found.append(f"{id} survived and must be shown to be equivalent: {entry['what']}")
    return found


# ---- do the verdicts still hold? ----


def check(ids: Iterable[str], table: dict[str, dict], report: Callable[[str], None]) -> list[str]:
    """Repeats the recorded runs of these mutants; a sentence for each that went otherwise."""
    wrong = []
    for name, kernel in KERNELS.items():
        own = {m.id for m in kernel.mutants()}
        # Those that are not are told of by disagreements().
        chosen = [id for id in ids if id in own and id in table]
        if chosen and kernel.missing:
            wrong.append(f"{name} was not judged: {kernel.missing}")
            continue
        kills = {id: kill_of(table[id]) for id in chosen if kill_of(table[id])}
        survivors = [id for id in chosen if id not in kills]
        for id, words in kernel.replay(kills) if kills else ():
            report(f"{name}: {id}: {words}")
            # A wild access may end either way, as the system lays out memory.
            if words != kills[id].words and not (words or "").startswith(CRASH):
                wrong.append(f"{id} must end with '{kills[id].words}', got {words or 'no error'}")
        for id, kill in kernel.hunt(survivors) if survivors else ():
            report(f"{name}: {id}: {kill or 'survives'}")
            if kill is not None:
                wrong.append(f"{id} must survive, as shown in the table, got {kill}")
    return wrong


def record(names: Iterable[str], table: dict[str, dict], report: Callable[[str], None]) -> None:
    """Judges all mutants of these kernels anew and writes the table."""
    for name in names:
        kernel = KERNELS[name]
        mutants = {m.id: m.what for m in kernel.mutants()}
        as_it_is = dict(kernel.hunt([""]))[""]
        assert as_it_is is None, f"{name} must pass without a mutation, got {as_it_is}"
        for id, kill in kernel.hunt(list(mutants)):
            before = table.get(id, {})
            proof = before.get("equivalent", "") if before.get("what") == mutants[id] else ""
            values = (id, mutants[id], *((kill.build, kill.seeds, kill.words) if kill else ()))
            table[id] = dict(zip(FIELDS, values, strict=False))
            if kill is None:
                table[id]["equivalent"] = proof
            report(f"{name}: {id}: {kill or 'survives'}")
        known = every_mutant()
        save({id: entry for id, entry in table.items() if id in known})


def sample(table: dict[str, dict], most: int) -> list[str]:
    """Mutants that one build killed, from one on that each change of the sources draws anew."""
    builds = {}
    for id, (name, _) in every_mutant().items():
        if "build" in table.get(id, {}) and not KERNELS[name].missing:
            builds[id] = name, table[id]["build"]
    drawn = list(builds)[_hash_of_sources() % len(builds)]
    together = [id for id in builds if builds[id] == builds[drawn]]
    start = together.index(drawn)
    return (together[start:] + together[:start])[:most]


def _hash_of_sources() -> int:
    state = hashlib.sha256()
    folders = ("csrc", "examples", "triton_kernels", "python/lowbit", "tests")
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".cuh", ".cu", ".h", ".inl", ".cpp", ".json"}:
                state.update(path.read_bytes())
    return int.from_bytes(state.digest()[:8], "little")
