"""Mutants of kernel texts: the rules find every construct, and every mutant has its verdict."""

import subprocess
from pathlib import Path

import pytest

from tests.build_cache import ROOT
from tests.mutation import kills
from tests.mutation.cpp_rules import cpp_mutants
from tests.mutation.kernels import KERNELS, NOT_JUDGED
from tests.mutation.mutants import Change, Kill, Mutant, mutated
from tests.mutation.schemata import PRELUDE, VARIABLE, with_all
from tests.mutation.triton_rules import triton_mutants

DATA = Path(__file__).parent / "mutation"
SAMPLE = 60  # mutants: at most 40 s with the build that judges them


@pytest.fixture(scope="module")
def table():
    return kills.load()


# ---- sites ----


def changes(mutants: list[Mutant]) -> list[str]:
    return [f"{mutant.id.partition(':')[2]}: {mutant.what}" for mutant in mutants]


@pytest.mark.parametrize(
    ("sample", "rules"), [("constructs.cuh", cpp_mutants), ("constructs.py.txt", triton_mutants)]
)
def test_every_construct_is_found(sample, rules):
    """And nothing in comments, strings, constants and templates."""
    found = changes(rules(sample, (DATA / "samples" / sample).read_text()))
    assert found == (DATA / "samples" / f"{sample}.sites").read_text().splitlines()


def test_names_outlive_edits_elsewhere():
    text = (DATA / "samples" / "constructs.cuh").read_text()
    other = "inline void other(int n) {\n  if (n < 3) sync_block();\n}\n\n"
    here = {m.id: m.what for m in cpp_mutants("x", text)}
    moved = {m.id: m.what for m in cpp_mutants("x", text.replace("// here\n", other))}
    assert here.items() < moved.items()
    assert {id.split(":")[1] for id in moved.keys() - here.keys()} == {"other"}


def test_every_text_is_judged():
    judged = {text for kernel in KERNELS.values() for text in kernel.texts}
    folders = {"csrc/cuda": "cuh", "examples/cuda": "cuh", "csrc/cpu": "inl"}
    texts = [p for folder, suffix in folders.items() for p in (ROOT / folder).glob(f"*.{suffix}")]
    texts += [ROOT / folder / "config.h" for folder in ("csrc/cuda", "examples/cuda")]
    texts += [p for p in (ROOT / "triton_kernels").glob("*.py") if p.stem != "__init__"]
    assert {str(path.relative_to(ROOT)) for path in texts} == judged | set(NOT_JUDGED)


# ---- all mutants in one program ----

TOY = """#include <cstdio>
int f(int n) {
  int i = 3;
  if (n < 4 && n > 0) i = n;
  return i;
}
int main() { for (int n = 0; n < 6; ++n) std::printf("%d", f(n)); }
"""


def output(source: Path, text: str, number: int = 0) -> str:
    source.write_text(text)
    program = source.with_suffix("")
    if number == 0:
        subprocess.run(["g++", "-std=c++20", "-O0", source, "-o", program], check=True)
    return subprocess.run(
        [program], env={VARIABLE: str(number)}, capture_output=True, text=True
    ).stdout


def test_one_program_for_all_mutants(tmp_path):
    spans = {"n < 4 && n > 0": "true", "n < 4": "n <= 4", "n > 0": "n >= 0"}
    made = [("always", a, b, False) for a, b in spans.items()]
    made += [("assignment", "i = n;", "", True), ("assignment", "i = n;", "i = 7;", True)]
    changes = {}
    for number, (rule, before, after, statement) in enumerate(made, 1):
        start = TOY.index(before)
        changes[number] = Change(rule, start, start + len(before), after, statement)
    all_in_one = PRELUDE + with_all(TOY, changes)
    assert output(tmp_path / "all.cpp", all_in_one) == output(tmp_path / "true.cpp", TOY)
    for number, change in changes.items():
        alone = output(tmp_path / "alone.cpp", mutated(TOY, change))
        assert output(tmp_path / "all.cpp", all_in_one, number) == alone != "312333"


# ---- verdicts ----


def test_table_fits_the_texts(table):
    assert kills.disagreements(table, kills.every_mutant()) == []


def test_a_new_barrier_needs_a_verdict(table):
    name = "tiled_gemm"
    path = KERNELS[name].texts[-1]
    text = (ROOT / path).read_text().replace("sync_block();", "sync_block();\n    sync_block();")
    new = {m.id: (name, m.what) for m in cpp_mutants(path, text)}
    told = kills.disagreements(table, {**kills.every_mutant(), **new})
    assert told == [
        f"{path}:tiled_gemm_kernel:sync_block:2 has no recorded verdict: sync_block(); -> nothing; "
        "run with --record"
    ]


def test_stale_and_unproven_verdicts_are_told():
    entry = {"id": "t:f:always:1", "what": "a < b -> true"}
    mutants = {entry["id"]: ("k", entry["what"])}
    told = kills.disagreements({entry["id"]: {**entry, "equivalent": ""}}, mutants)
    assert "survived and must be shown to be equivalent" in told[0]
    proven = {entry["id"]: {**entry, "equivalent": "b is never reached"}}
    assert kills.disagreements(proven, mutants) == []
    assert (
        "recorded for another text"
        in kills.disagreements(proven, {entry["id"]: ("k", "a < c -> true")})[0]
    )
    assert "not in a kernel's text" in kills.disagreements(proven, {})[0]


def test_one_kernel_is_told_of_alone(table):
    name, others = "vector_scale", [name for name in KERNELS if name != "vector_scale"]
    own = kills.part(table, [name])
    assert kills.disagreements(own, kills.every_mutant([name])) == []
    assert own.keys().isdisjoint(kills.part(table, others))
    assert kills.disagreements(own, kills.every_mutant(others)) != []


class Judge:
    """Kills what its table says, in place of a kernel."""

    missing = None

    def __init__(self, **words):
        self.words = words

    def mutants(self):
        return [Mutant(id, Change("r", 0, 0, ""), "a -> b") for id in self.words if id]

    def hunt(self, ids):
        return [(id, w and Kill("plain", (1, 1), w)) for id in ids for w in [self.words[id]]]

    def replay(self, kills):
        return [(id, self.words[id]) for id in kills]


def test_verdicts_that_no_longer_hold_are_told(monkeypatch):
    killed = {"what": "a -> b", "build": "plain", "seeds": [1, 1], "words": "data race"}
    table = {"t:f:r:1": killed, "t:f:r:2": killed, "t:f:r:3": {"what": "a -> b", "equivalent": "x"}}
    judge = Judge(**{"t:f:r:1": "wrong value", "t:f:r:2": None, "t:f:r:3": "wrong value"})
    monkeypatch.setattr(kills, "KERNELS", {"k": judge})
    told = "\n".join(kills.check(table, table, lambda line: None))
    assert "t:f:r:1 must end with 'data race', got wrong value" in told
    assert "t:f:r:2 must end with 'data race', got no error" in told
    assert "t:f:r:3 must survive" in told


def test_a_kernel_that_fails_as_it_is_cannot_judge(monkeypatch):
    monkeypatch.setattr(kills, "KERNELS", {"k": Judge(**{"": "wrong value"})})
    with pytest.raises(AssertionError, match="k must pass without a mutation, got .*wrong value"):
        kills.record(["k"], {}, lambda line: None)


def test_sample_holds(table):
    chosen = kills.sample(table, SAMPLE)
    assert chosen
    assert kills.check(chosen, table, print) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_all_hold(table, name):
    if KERNELS[name].missing:
        pytest.skip(KERNELS[name].missing)
    assert kills.check([m.id for m in KERNELS[name].mutants()], table, print) == []
