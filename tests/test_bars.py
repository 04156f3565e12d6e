"""Bars are data, and each kind passes and fails where its words say so: on rows made up here."""

import dataclasses

import pytest

from lowbit.bench import bars
from lowbit.bench.bars.evaluators import KINDS, Facts, Outcome
from lowbit.bench.entries import peers
from lowbit.bench.models import MODELS
from lowbit.bench.plan import LAYERS, Plan
from lowbit.bench.rows import Row
from lowbit.registry import BACKENDS

FACTS = Facts(2, {2: {"fma": 1e9}})
GIGA = 1e9


def row(backend="lowbit cpu (avx512)", seconds=1e-3, **fields):
    """A row of which every sample took the same time."""
    fields = {"m": 1, "n": 4096, "k": 4096, "code_bits": 4, "mode": "int8x2", "run": "r"} | fields
    case = fields.pop("case", f"M={fields['m']} {fields['n']}x{fields['k']}")
    threads = fields.pop("threads", 2)
    return Row(case, backend, threads, samples=[seconds] * 5, **fields)


def verdicts(kind, rows, facts=FACTS, **bar):
    outcomes = list(KINDS[kind]({"name": "a bar", **bar}, rows, facts))
    return [outcome.passed for outcome in outcomes]


@pytest.mark.parametrize("op", bars.names())
def test_the_files_are_complete(op):
    found = bars.read(op)
    assert found.op == op and {bar["run"] for bar in found.bars} == set(found.runs)
    assert all(bar["kind"] in KINDS for bar in found.bars)
    for plan in found.plans((), Plan()):
        assert set(plan.backends) <= {*BACKENDS, *peers()}
        assert plan.run in found.runs and plan.rows and plan.layers
        assert plan.op == "overhead" or (plan.op == op and plan.weights())
    empty = found.judge([], FACTS)
    assert len(empty) >= len(found.bars) and not any(outcome.passed for outcome in empty)


def test_the_layers_of_a_model_come_on_top():
    found = bars.read("weight_only_linear")
    plans = {plan.run: plan for plan in found.plans(MODELS["llama3-8b"], Plan())}
    assert found.layers == LAYERS
    assert plans["decode"].layers == (*LAYERS, (4096, 14336))
    assert plans["threads"].layers == ((4096, 4096),)
    assert plans["decode"].rows == (1, 2, 3, 4, 5, 6, 7, 8)
    assert plans["low bits"].bits == (2, 3, 4)


def test_a_bar_without_rows_is_missed():
    found = bars.Bars("op", (), {}, ({"name": "x", "run": "r", "kind": "limit"},))
    assert found.judge([], FACTS) == [Outcome("x", "", "nothing", "a measurement", False)]


@pytest.mark.parametrize(
    "seconds, bytes_, operations, passed",
    [
        (1.26e-3, 10_000_000, 0, True),  # 1.25 x 1 ms + 0.01 ms
        (1.27e-3, 10_000_000, 0, False),
        (1.26e-3, 0, 1_000_000, True),
        (1.27e-3, 0, 1_000_000, False),
    ],
)
def test_limit_is_the_larger_of_bytes_and_operations(seconds, bytes_, operations, passed):
    probed = row(seconds=seconds, bytes=bytes_, operations=operations, probes=[10 * GIGA] * 5)
    probed.peak = GIGA
    peer = row("a peer", seconds=1.0)
    assert verdicts("limit", [probed, peer], factor=1.25, plus_ms=0.01) == [passed]


def test_limit_takes_the_probe_of_each_sample():
    flipping = row(bytes=10_000_000, probes=[10 * GIGA, 5 * GIGA, 10 * GIGA, 5 * GIGA, 10 * GIGA])
    flipping.samples = [1.2e-3, 2.4e-3, 1.2e-3, 2.4e-3, 1.2e-3]
    assert verdicts("limit", [flipping], factor=1.25, plus_ms=0.01) == [True]
    flipping.samples = [1.5e-3, 1.5e-3, 1.5e-3, 1.5e-3, 1.5e-3]  # fine only in the slow state
    assert verdicts("limit", [flipping], factor=1.25, plus_ms=0.01) == [False]


@pytest.mark.parametrize("kind", ["limit", "rate"])
def test_a_row_of_ours_that_was_not_timed_is_a_miss(kind):
    absent = dataclasses.replace(row(m=16, note="n/a: not built"), samples=[])
    numbers = {"factor": 1.25, "plus_ms": 0.01, "gflops": {"16": 1}, "layer": [4096, 4096]}
    (outcome,) = KINDS[kind]({"name": "x", "others_within": 0.0, **numbers}, [absent], FACTS)
    assert outcome.passed is False and outcome.measured == "n/a: not built"


@pytest.mark.parametrize(
    "peer_error, peer_seconds, passed",
    [
        (3e-3, 0.9e-3, False),  # coarser and faster
        (3e-3, 1.1e-3, True),
        (1e-3, 0.9e-3, False),  # as exact as our bf16, but for the draw
        (3e-5, 0.9e-3, False),  # our int8x2 is as exact, and slower still
        (3e-5, 1.6e-3, True),
    ],
)
def test_ahead_of_what_is_no_more_exact(peer_error, peer_seconds, passed):
    ours = [
        row(mode="bf16", seconds=1e-3, compute_error=1e-3),
        row(mode="int8x2", seconds=1.5e-3, compute_error=3e-5),
    ]
    exact = row("exact peer", seconds=1e-9, compute_error=1e-7)
    peer = row("peer", seconds=peer_seconds, compute_error=peer_error)
    bar = {"peers": "no more exact", "error_tolerance": 1.1}
    assert verdicts("ahead", [*ours, exact, peer], **bar) == [passed]
    assert verdicts("ahead", [*ours, exact], **bar) == [False]  # nothing to compare with


@pytest.mark.parametrize("ours, passed", [(0.9e-3, True), (1.1e-3, False)])
def test_ahead_of_float_activations(ours, passed):
    rows = [
        row(seconds=ours, mode="bf16"),
        row("int8 activations", 0.1e-3, arithmetic="int8", flops=5, operations=5),
        row("float", 1e-3, arithmetic="bf16", flops=5, operations=5),
    ]
    assert verdicts("ahead", rows, peers="float activations") == [passed]


def test_ahead_names_the_closest_peer():
    peers = [row("far", 9e-3, compute_error=1.0), row("close", 1.5e-3, compute_error=1.0)]
    bar = {"name": "x", "peers": "no more exact", "error_tolerance": 1.1}
    (outcome,) = KINDS["ahead"](bar, [row(), *peers], FACTS)
    assert outcome.passed and "close" in outcome.required


@pytest.mark.parametrize(
    "layer, rate, passed",
    [
        ((4096, 4096), 385, True),
        ((4096, 4096), 384, False),
        ((8, 8), 359, True),
        ((8, 8), 358, False),
    ],
)
def test_rate_of_other_layers_may_be_lower(layer, rate, passed):
    n, k = layer
    measured = row(m=16, n=n, k=k, seconds=1.0, flops=int(rate * 1e9 + 1))
    bar = {"layer": [4096, 4096], "gflops": {"16": 385}, "others_within": 0.07}
    assert verdicts("rate", [measured, row(m=3)], **bar) == [passed]


@pytest.mark.parametrize(
    "peaks, passed",
    [
        ({"dot": 100e9}, True),
        ({"dot": 130e9}, False),
        ({"dot": 130e9, "tile": 900e9}, None),
        ({}, None),
    ],
)
def test_share_of_an_instruction_where_there_is_no_faster_one(peaks, passed):
    measured = row(m=16, seconds=1.0, flops=int(90e9))
    bar = {"layer": [4096, 4096], "shares": {"16": 0.9}, "others_within": 0.07}
    bar |= {"instruction": "dot", "unless": "tile"}
    assert verdicts("share", [measured], Facts(2, {2: peaks}), **bar) == [passed]


@pytest.mark.parametrize("seconds, passed", [(0.57e-3, True), (0.58e-3, False)])
def test_bytes_set_the_time_of_fewer_bits(seconds, passed):
    four = row(code_bits=4, bytes=8, seconds=1e-3, probes=[GIGA] * 5)
    two = row(code_bits=2, bytes=4, seconds=seconds / 2, probes=[2 * GIGA] * 5)
    assert verdicts("bytes", [four, two], beside_bits=4, within=0.15) == [passed]
    assert verdicts("bytes", [two], beside_bits=4, within=0.15) == [False]


def test_bytes_names_the_bits_that_it_compares_with():
    three, two = (row(code_bits=bits, bytes=bits, probes=[GIGA] * 5) for bits in (3, 2))
    bar = {"name": "x", "beside_bits": 3, "within": 0.15}
    (outcome,) = KINDS["bytes"](bar, [three, two], FACTS)
    assert outcome.measured == "1.00 of 3 bits"


@pytest.mark.parametrize("gain, passed", [(1.81, True), (1.79, False)])
def test_scaling(gain, passed):
    rows = [row(threads=1, seconds=gain * 1e-3), row(threads=2)]
    bar = {"threads": [1, 2], "at_least": 1.8}
    assert verdicts("scaling", rows, **bar) == [passed]
    assert verdicts("scaling", rows[:1], **bar) == [False]
    assert verdicts("scaling", rows, Facts(1, {}), **bar) == [None]


def test_time_by_backend():
    rows = [row("lowbit op", 4.9e-6), row("lowbit call", 8.1e-6)]
    most = {"lowbit op": 5, "lowbit call": 8, "lowbit import": 50000}
    assert verdicts("time", rows, at_most_us=most) == [True, False, False]


def test_verdicts_in_words():
    words = [Outcome("b", "c", "m", "r", passed).cells()[-1] for passed in (True, False, None)]
    assert words == ["pass", "FAIL", "n/a"]
