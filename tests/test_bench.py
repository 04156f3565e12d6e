"""Timing without times: structure of rows, peers, probes and tables."""

import dataclasses
import io
import sys

import pytest
import torch

from lowbit import native, registry
from lowbit.bench import entries, load, probe, report, runner
from lowbit.bench.cases import CASES
from lowbit.bench.entries import Entry, Layer, Workload

PLAN = runner.Plan(layers=((32, 128),), rows=(2,), group_size=32, min_time=1e-4)


@pytest.fixture(autouse=True)
def small_probe(monkeypatch):
    """No test looks at times, so the probes need not be exact."""
    monkeypatch.setattr(probe, "_buffer_bytes", lambda device, quick: 1 << 20)
    monkeypatch.setattr(probe, "_MATRIX", 64)


def workload(**changes):
    plan = dataclasses.replace(PLAN, **changes)
    (case,) = plan.cases(*plan.layers[0])
    return Workload.make(case, Layer.make(case.weight, "cpu"))


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
    rows = list(runner.run(dataclasses.replace(PLAN, op=op)))
    assert not [row for row in rows if row.note == "n/a: it has no such op"]
    timed = [row for row in rows if row.samples]
    assert any(row.backend.startswith("lowbit") for row in timed)
    for row in timed:
        assert min(row.samples) > 0 and row.bandwidth > 0 and row.peak > 0
        assert row.bytes > 0 and row.flops > 0
    for row in rows:
        assert row.samples or row.note.startswith("n/a: ")


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
    rows = list(runner.run(dataclasses.replace(PLAN, bits=bits, backends=("reference",))))
    assert len(rows) == 1 and rows[0].samples
    assert bits < rows[0].bits < bits + 1.5


@pytest.mark.parametrize(
    "changes",
    [{"bits": 3}, {"group_size": 48}, {"layers": ((33, 128),)}, {"op": "dequantize_weight"}],
)
def test_int4_peer_says_what_it_cannot_run(changes):
    _, reason = entries.entry_of(workload(**changes), "torch_int4")
    assert isinstance(reason, str)


def test_samples_are_taken_in_turns():
    calls = []
    entries_ = [
        Entry(name, lambda name=name: calls.append(name), (), torch.zeros(1)) for name in "AB"
    ]
    samples = runner.measure(entries_, min_time=1e-9, cold=False)
    assert [len(taken) for taken in samples] == [5, 5]
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert turns == ["A", "B"] * (len(turns) // 2) and len(turns) >= 10


def test_cold_calls_rotate_over_copies(monkeypatch):
    monkeypatch.setattr(runner, "_COLD_BYTES", 1000)
    seen = set()
    operand = torch.zeros(100)
    entry = Entry("rotating", lambda t: seen.add(t.data_ptr()), (operand,), operand)
    runner.measure([entry], min_time=1e-9, cold=True)
    assert len(seen) == 3


def test_threads_are_set_and_restored():
    before = torch.get_num_threads()
    rows = list(runner.run(dataclasses.replace(PLAN, threads=(1, 2), backends=("reference",))))
    assert [row.threads for row in rows] == [1, 2]
    assert torch.get_num_threads() == before


def test_probe_measures_both_limits():
    limits = probe.Probe("cpu")
    assert limits.bandwidth() > 0 and limits.fp32_peak() > 0


def test_probe_reads_more_than_the_cache_within_bounds(monkeypatch):
    monkeypatch.undo()
    for cache, want in ((0, 256 << 20), (200 << 20, 400 << 20), (2 << 30, 1 << 30)):
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


@pytest.mark.parametrize("share, crowded", [(None, False), (0.01, False), (0.3, True)])
def test_rows_of_a_crowded_machine_are_marked(monkeypatch, share, crowded):
    monkeypatch.setattr(load.Waiting, "share", lambda self, threads: share)
    (row,) = runner.run(dataclasses.replace(PLAN, backends=("reference",)))
    assert row.waited == share
    assert ("crowded machine: threads waited 30% of the time for a core" in row.note) == crowded


def test_speedup_is_over_torch_fp32():
    rows = [
        runner.Row("c", runner.BASELINE, 1, samples=[2.0]),
        runner.Row("c", "x", 1, samples=[1.0]),
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
