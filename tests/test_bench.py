"""Timing without times: structure of rows, peers, probes and tables."""

import dataclasses
import io
import math
import pathlib
import runpy
import sys

import pytest
import torch

from lowbit import native, registry
from lowbit.bench import check, entries, load, overhead, probe, report, runner, sampling
from lowbit.bench.cases import CASES
from lowbit.bench.entries import Layer, Workload
from lowbit.bench.models import MODELS
from lowbit.bench.plan import LAYERS, ROWS, Plan
from lowbit.bench.rows import Row

ROOT = pathlib.Path(__file__).parents[1]
PLAN = Plan(layers=((32, 128),), rows=(2,), group_size=32, modes=("exact",), min_time=1e-4)


@pytest.fixture(autouse=True)
def small_probe(monkeypatch):
    """No test looks at times, so the probes need not be exact, and a noisy machine will do."""
    monkeypatch.setattr(sampling, "_AGREEMENT", math.inf)
    monkeypatch.setattr(probe, "_buffer_bytes", lambda device, quick: 1 << 20)
    monkeypatch.setattr(probe, "_MATRIX", 64)


@pytest.fixture
def quiet(monkeypatch):
    """Whatever else runs, nothing waited for a core."""
    monkeypatch.setattr(load.Waiting, "share", lambda self, threads: 0.0)


def workload(**changes):
    plan = dataclasses.replace(PLAN, **changes)
    (weight,) = plan.weights()
    ((case,),) = plan.groups(weight)
    return Workload(case, Layer.make(weight, "cpu"), plan.prepack)


def rows_of(**changes):
    return list(runner.run([dataclasses.replace(PLAN, **changes)], {}))


def test_peers_are_found():
    assert {"torch_fp32", "torch_bf16", "torch_int4"} <= set(entries.peers())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name, bits", [("torch_fp32", 32), ("torch_bf16", 16), ("torch_int4", 5)])
def test_peers_compute_what_their_weights_stand_for(name, bits, symmetric):
    work = workload(symmetric=symmetric)
    _, entry = entries.entry_of(work, name)
    assert 8 * entry.operand_bytes == bits * entry.weight.numel()
    weight_error, compute_error = entries.errors(work, entry)
    assert 0.05 < weight_error < 0.15
    assert compute_error < (1e-6 if name == "torch_fp32" else 0.01)


@pytest.mark.parametrize("op", sorted(CASES))
def test_every_op_can_be_timed(op):
    rows = rows_of(op=op)
    assert not [row for row in rows if row.note == "n/a: it has no such op"]
    timed = [row for row in rows if row.samples]
    assert any(row.backend.startswith("lowbit") for row in timed)
    for row in timed:
        assert min(row.samples) > 0 and row.bandwidth > 0 and row.op == op
        assert row.bytes > 0 and row.flops > 0 and row.operations == row.flops
        assert row.arithmetic != "fp32" or row.peak > 0
    for row in rows:
        assert row.samples or row.note.startswith("n/a: ")


@pytest.mark.parametrize("op", sorted(CASES))
def test_bytes_of_a_row_are_those_of_the_case_where_the_weight_is(op):
    work = workload(op=op)
    (row,) = rows_of(op=op, backends=("reference",))
    assert row.bytes == work.case.bytes
    _, entry = entries.entry_of(work, "reference")
    assert row.bytes - work.case.bytes_beside_weight == entry.operand_bytes


def test_the_entry_of_pytest_benchmark_runs():
    entry = runpy.run_path(str(ROOT / "bench/test_bench.py"))
    assert {case.m for case in entry["CASES"]} == set(ROWS)
    results = []

    def benchmark(call, *operands):
        results.append(call(*operands))

    entry["test_bench"](benchmark, workload().case, "reference")
    assert [result.shape for result in results] == [(2, 32)]


def test_the_peer_of_dequantize_moves_a_float32_matrix():
    work = workload(op="dequantize_weight", dtype=torch.float16)
    name, entry = entries.entry_of(work, "torch_copy")
    assert name == "torch copy fp32" and entry.operand_bytes == 4 * 32 * 128
    assert torch.equal(entry.call(*entry.operands), work.layer.plain.half())
    assert entries.entry_of(workload(), "torch_copy")[1] == "it has no such op"


@pytest.mark.parametrize("name", ["reference", "torch_copy"])
def test_dequantize_is_timed_into_a_given_output(name):
    _, entry = entries.entry_of(workload(op="dequantize_weight"), name)
    with entry.context():
        first, second = (entry.call(*entry.operands) for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    assert torch.equal(first, entry.weight)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_bit_width_can_be_timed(bits):
    rows = rows_of(bits=(bits,), backends=("reference",))
    assert len(rows) == 1 and rows[0].samples
    assert bits < rows[0].bits < bits + 1.5


@pytest.mark.parametrize(
    "changes",
    [{"bits": (3,)}, {"group_size": 48}, {"layers": ((33, 128),)}, {"op": "dequantize_weight"}],
)
def test_int4_peer_says_what_it_cannot_run(changes):
    _, reason = entries.entry_of(workload(**changes), "torch_int4")
    assert isinstance(reason, str)


def test_threads_are_set_and_restored():
    before = torch.get_num_threads()
    rows = rows_of(threads=(1, 2), backends=("reference",))
    assert [row.threads for row in rows] == [1, 2]
    assert torch.get_num_threads() == before


@pytest.fixture(params=["native", "torch"])
def limits(request, monkeypatch):
    if request.param == "torch":
        absent = native.Library("_ops_cpu", None, False)
        monkeypatch.setattr(native, "load", lambda name: absent)
    limits = probe.Probe("cpu")
    if limits.native != (request.param == "native"):
        pytest.skip("the CPU kernels are not built")
    return limits


def test_probe_measures_both_limits(limits):
    assert limits.bandwidth() > 0
    peaks = limits.peaks()
    assert probe.peak_of("fp32", peaks) == peaks["fma"] > 0
    assert probe.peak_of("", peaks) == probe.peak_of("fp32", {}) == 0


def test_native_probe_checks_its_arguments():
    if not native.load("_ops_cpu").loaded:
        pytest.skip("the CPU kernels are not built")
    read, peak = torch.ops.lowbit._probe_read, torch.ops.lowbit._probe_peak
    with pytest.raises(ValueError, match="_probe_read: buffer must be float32, got float64"):
        read(torch.ones(1 << 20, dtype=torch.float64))
    with pytest.raises(ValueError, match="_probe_read: buffer must be contiguous"):
        read(torch.ones(1 << 20)[::2])
    with pytest.raises(ValueError, match="buffer must have at least .* a thread, got 1"):
        read(torch.ones(1))
    with pytest.raises(ValueError, match="_probe_peak: kind must be fma, .*, got 'x'"):
        peak("x")


@pytest.mark.parametrize("isa", native.ISAS)
def test_an_instruction_set_has_the_peaks_of_its_instructions(isa):
    if not native.load("_ops_cpu").loaded:
        pytest.skip("the CPU kernels are not built")
    names = {name for names in probe.INSTRUCTIONS.values() for name in names}
    try:
        with native.use_isa(isa):
            peaks = {name: torch.ops.lowbit._probe_peak(name) for name in names}
    except RuntimeError:
        pytest.skip(f"this CPU has no {isa}")
    level = native.ISAS.index(isa)
    first = {"fma": "scalar", "dot_int8": "scalar", "dot_bf16": "avx512_bf16"}
    for name, peak in peaks.items():
        assert (peak > 0) == (level >= native.ISAS.index(first.get(name, "amx"))), name


def test_probes_ignore_a_forced_instruction_set():
    if not native.load("_ops_cpu").loaded:
        pytest.skip("the CPU kernels are not built")
    with native.use_isa("scalar"):
        with probe.best_isa():
            best = native.isa()
        assert native.isa() == "scalar"
    assert native.ISAS.index(best) >= native.ISAS.index(native.isa())


def test_probe_reads_another_window_each_time(monkeypatch):
    monkeypatch.setattr(probe, "_buffer_bytes", lambda device, quick: 4 << 20)
    monkeypatch.setattr(probe, "_PASS_BYTES", 1 << 20)
    limits = probe.Probe("cpu")
    if not limits.native:
        pytest.skip("the CPU kernels are not built")
    windows = [next(limits._windows) for _ in range(5)]
    assert {window.nbytes for window in windows} == {1 << 20}
    assert len({window.data_ptr() for window in windows}) == 4


def test_probe_reads_more_than_the_cache_within_bounds(monkeypatch):
    monkeypatch.undo()
    for cache, want in ((0, 256 << 20), (300 << 20, 512 << 20), (2 << 30, 1 << 30)):
        monkeypatch.setattr(probe, "cache_bytes", lambda cache=cache: cache)
        assert probe._buffer_bytes("cpu", quick=False) == want


def threads_that_waited(monkeypatch, tmp_path, *nanoseconds):
    for number, waited in enumerate(nanoseconds):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "schedstat").write_text(f"123 {waited} 4\n")
    monkeypatch.setattr(load, "_THREADS", tmp_path)


def test_waiting_is_a_share_of_the_time_of_all_threads(monkeypatch, tmp_path):
    clock = iter((100.0, 104.0))
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    threads_that_waited(monkeypatch, tmp_path, 10**9, 0)
    waiting = load.Waiting()
    threads_that_waited(monkeypatch, tmp_path, 2 * 10**9, 10**9)
    assert waiting.share(threads=2) == 0.25


def test_waiting_is_unknown_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(load, "_THREADS", tmp_path / "absent")
    assert load.Waiting().share(1) is None
    monkeypatch.delattr(load.os, "getloadavg", raising=False)
    assert load.load_average() is None


@pytest.mark.parametrize("permitted", [True, False])
def test_threads_go_first_where_that_is_permitted(monkeypatch, tmp_path, permitted):
    niceness = {1: 0, 2: 5}  # a third thread has ended meanwhile

    def get(kind, thread):
        if thread not in niceness:
            raise ProcessLookupError
        return niceness[thread]

    def renice(kind, thread, value):
        get(kind, thread)
        if not permitted and value < 0:
            raise PermissionError
        niceness[thread] = value

    for thread in (1, 2, 3):
        (tmp_path / "task" / str(thread)).mkdir(parents=True)
    group = tmp_path / "autogroup"
    group.write_text("/autogroup-16 nice 3\n")
    monkeypatch.setattr(load, "_THREADS", tmp_path / "task")
    monkeypatch.setattr(load, "_GROUP", group)
    for name, fake in (("getpid", lambda: 1), ("getpriority", get), ("setpriority", renice)):
        monkeypatch.setattr(load.os, name, fake)
    with load.priority():
        assert niceness == ({1: -10, 2: -10} if permitted else {1: 0, 2: 5})
        assert group.read_text() == "-10"
    assert niceness == {1: 0, 2: 5} and group.read_text() == "3"


def test_systems_without_groups_of_sessions_get_none(monkeypatch, tmp_path):
    monkeypatch.setattr(load, "_GROUP", tmp_path / "absent")
    with load.priority():
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share, crowded", [(None, False), (0.01, False), (0.3, True)])
def test_rows_of_a_crowded_machine_are_marked(monkeypatch, share, crowded):
    monkeypatch.setattr(load.Waiting, "share", lambda self, threads: share)
    (row,) = rows_of(backends=("reference",))
    assert row.waited == share
    assert ("crowded machine: threads waited 30% of the time for a core" in row.note) == crowded


def test_a_slow_and_a_fast_state_around_a_case_are_told(monkeypatch):
    monkeypatch.setattr(sampling, "_AGREEMENT", 0.15)
    found = iter((10e9, 12e9))
    monkeypatch.setattr(probe.Probe, "bandwidth", lambda self: next(found))
    (row,) = rows_of(backends=("reference",), quick=True)
    assert "noisy: the bandwidth probes around it differ" in row.note and not row.probes


def test_cold_samples_keep_their_probes_and_drop_what_is_noisy(monkeypatch, quiet):
    monkeypatch.setattr(sampling, "_AGREEMENT", 0.15)
    found = iter([10e9] * 8 + [20e9] * 1000)
    monkeypatch.setattr(probe.Probe, "bandwidth", lambda self: next(found))
    limits = probe.Probe("cpu")
    if not limits.native:
        pytest.skip("the CPU kernels are not built")
    monkeypatch.setattr(sampling, "timed", lambda *args: 1e-4)
    (row,) = rows_of(backends=("reference",), min_time=0.2)
    assert row.cold and row.dropped == 1 and not row.note
    assert len(row.probes) == len(row.samples) >= 5
    assert row.probes[:6] == [10e9] * 6 and set(row.probes[6:]) == {20e9}
    assert row.bandwidth in (10e9, 20e9)


def test_modes_are_interleaved_and_peers_timed_once():
    rows = rows_of(modes=("exact", "bf16"), backends=("reference", "torch_fp32"))
    assert [(row.backend, row.mode) for row in rows] == [
        ("lowbit reference", "exact"),
        ("lowbit reference", "bf16"),
        ("torch fp32", ""),
    ]
    assert len({row.case for row in rows}) == 1
    assert [row.arithmetic for row in rows] == ["fp32", "bf16", "fp32"]
    assert rows[0].compute_error < rows[1].compute_error


def test_two_planes_count_twice_against_the_peak(monkeypatch):
    monkeypatch.setattr(probe, "INSTRUCTIONS", {"int8": ("fma",)})
    (row,) = rows_of(modes=("int8x2",), backends=("reference",))
    assert row.operations == 2 * row.flops and not row.quantizes_activations
    assert row.share_of_peak == pytest.approx(2 * row.flops / row.median / row.peak)


def test_plans_share_the_layers(monkeypatch):
    made = []
    make = Layer.make
    monkeypatch.setattr(Layer, "make", lambda spec, device: made.append(spec) or make(spec, device))
    plans = [
        dataclasses.replace(PLAN, rows=(m,), backends=("reference",), run=f"M{m}") for m in (1, 3)
    ]
    peaks = {}
    rows = list(runner.run(plans, peaks))
    assert len(made) == 1 and [(row.run, row.m) for row in rows] == [("M1", 1), ("M3", 3)]
    assert set(peaks) == {torch.get_num_threads()}


@pytest.mark.parametrize("prepack, layout", [(True, "panels"), (False, "canonical")])
def test_cpu_kernels_get_the_prepacked_weight(monkeypatch, prepack, layout):
    if registry.BACKENDS["cpu"].missing(torch.device("cpu")):
        pytest.skip("the CPU kernels are not built")
    monkeypatch.setattr(check, "declined", lambda *args: None)
    weight = entries._weight_for(workload(prepack=prepack), "cpu")
    assert weight.layout == layout
    assert entries._weight_for(workload(prepack=prepack), "reference").layout == "canonical"


@pytest.mark.parametrize("op, axis", [("weight_only_linear", -1), ("dequantize_weight", 0)])
@pytest.mark.parametrize("weight_row", [0, 255, 768, 1023])
def test_a_wrong_row_at_either_end_of_a_large_weight_is_found(monkeypatch, op, axis, weight_row):
    right = check.run

    def wrong(*args):
        out = right(*args)
        out.select(axis, weight_row)[..., -1] += 1.0
        return out

    monkeypatch.setattr(check, "run", wrong)
    (row,) = rows_of(op=op, layers=((1024, 128),), backends=("reference",))
    assert row.failed and not row.samples and "wrong result, not timed" in row.note
    assert f"rows {0 if weight_row < 256 else 768} to " in row.note


def test_models_have_the_layers_that_are_timed_by_default():
    assert set(LAYERS) <= {*MODELS["llama2-7b"], *MODELS["llama3-8b"]}
    for layers in MODELS.values():
        assert len(set(layers)) == len(layers)
        assert all(n % 64 == 0 and k % 64 == 0 for n, k in layers)


def test_shares_are_those_of_each_sample():
    row = Row("c", "b", 1, samples=[1.0, 2.0, 4.0], probes=[10.0, 5.0, 2.5], bytes=5)
    row.bandwidth = 5.0
    assert row.share_of_bandwidth == 0.5 and row.share_of_peak is None
    assert row.limits == [0.5, 1.0, 2.0]
    row.operations, row.peak = 6, 4.0
    assert row.limits == [1.5, 1.5, 2.0]
    assert row.share_of_peak == 0.75 and (row.fast, row.spread) == (1.5, 1.5)
    row.m = 1  # of a weight that may lie in a cache nothing is said
    assert row.share_of_bandwidth is None
    row.cold = True
    assert row.share_of_bandwidth == 0.5


def test_a_single_sample_has_quartiles():
    row = Row("c", "b", 1, samples=[3.0])
    assert (row.fast, row.median, row.spread) == (3.0, 3.0, 0.0)


def test_overhead_has_every_way_in_and_the_import(monkeypatch):
    monkeypatch.setattr(overhead, "_IMPORTS", 1)
    rows = list(runner.run([Plan(op="overhead", min_time=1e-4, run="r")], {}))
    assert [row.backend for row in rows] == [
        *("lowbit kernel", "lowbit op", "lowbit call", "torch fp32"),
        *("lowbit import", "torch import"),
    ]
    assert all(row.samples and min(row.samples) > 0 and row.run == "r" for row in rows)


def test_every_way_in_computes_the_same():
    found = {name: call() for name, call in overhead.ways().items()}
    for name in ("lowbit op", "lowbit call"):
        assert torch.equal(found[name], found["lowbit op"])
    torch.testing.assert_close(found["lowbit op"], found["torch fp32"], rtol=0.01, atol=0.01)


def test_speedup_is_over_torch_fp32():
    rows = [
        Row("c", runner.BASELINE, 1, samples=[2.0]),
        Row("c", "x", 1, samples=[1.0]),
    ]
    runner._compare_with_baseline(rows)
    assert [row.speedup for row in rows] == [1.0, 2.0]


def test_markdown_cells_line_up():
    table = report.markdown(("a", "long name"), [("1", "2"), ("longer cell", "")])
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1 and set(lines[1]) == {"|", "-"}


def test_terminal_output_uses_rich_and_keeps_brackets(monkeypatch):
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    report.show(("a",), [("got [3, 7]",), ("[red]",)])
    assert "got [3, 7]" in terminal.getvalue() and "[red]" in terminal.getvalue()
    assert "│" in terminal.getvalue()


def test_support_table_compresses_runs_of_elements():
    assert report._values(("uint1", "uint2", "uint3", "table4", torch.float16)) == (
        "uint1-3, table4, float16"
    )


def test_own_entry_names_the_instruction_set():
    if registry.BACKENDS["cpu"].missing(torch.device("cpu")):
        pytest.skip("the CPU kernels are not built")
    name = entries.own_entry(workload(), "cpu").name
    assert name == f"lowbit cpu ({native.isa()})"
