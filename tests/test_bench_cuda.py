"""Timing on a GPU without one: torch.cuda is a stand-in whose clock moves with the calls alone."""

import contextlib
import json
import subprocess
import types

import pytest
import torch
from torch.overrides import TorchFunctionMode

from lowbit import cli
from lowbit.bench import cold, gpu, graphs, probe, results, sampling, saved
from lowbit.bench.cases import CASES
from lowbit.bench.entries import Entry
from lowbit.bench.plan import Plan

CALL = 5e-6  # seconds of a call on the stand-in
L2 = 4000
NAME, DRIVER = "NVIDIA Stand-in", "600.1"


class Machine:
    """Calls move its clock; those in a capture move that of the graph, at each replay."""

    def __init__(self):
        self.now, self.graph, self.log = 0.0, None, []

    def call(self, *operands):
        """What an entry on the GPU does: time passes, and its operands are seen."""
        self.log.append(operands)
        if self.graph is None:
            self.now += CALL
        else:
            self.graph.seconds += CALL
        return torch.zeros(1)

    def wait(self, *_):
        if self.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore words")
        self.log.append("wait")

    @contextlib.contextmanager
    def capture(self, graph, stream):
        self.graph = graph
        try:
            yield
        finally:
            self.graph = None


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = machine.now

        def elapsed_time(self, other):
            return 1e3 * (other.time - self.time)

        def synchronize(self):
            machine.log.append("wait")

    class Graph:
        seconds = 0.0

        def replay(self):
            machine.now += self.seconds
            machine.log.append("replay")

    @contextlib.contextmanager
    def stream(_):
        machine.log.append("enter")
        try:
            yield
        finally:
            machine.log.append("leave")

    stand_ins = {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": object,
        "stream": stream,
        "graph": machine.capture,
        "synchronize": machine.wait,
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_name": lambda: NAME,
        "get_device_properties": lambda device: types.SimpleNamespace(L2_cache_size=L2),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(gpu, "driver", lambda: DRIVER)
    monkeypatch.setattr(cold, "_BYTES", 1000)
    return machine


def entry(call, operands=(), **more):
    return Entry("A", call, operands, torch.zeros(1), **more)


def test_the_clock_of_the_gpu_counts(machine):
    assert gpu.elapsed(machine.call, 3) == pytest.approx(3 * CALL)
    assert machine.log == ["wait", (), (), (), "wait"]
    assert probe.timed(machine.call, 4, "cuda") == pytest.approx(CALL)


def test_a_graph_runs_every_call_at_each_replay(machine):
    replay = gpu.capture([machine.call, machine.call])
    first, *in_the_graph = [(), (), ()]  # libraries set themselves up in the first call
    assert machine.log == ["wait", "enter", first, *in_the_graph, "leave"]
    before = machine.now
    replay()
    assert machine.now - before == pytest.approx(2 * CALL)


@pytest.mark.parametrize("is_cold, copies", [(True, 20), (False, 1)])
def test_samples_are_of_a_product(machine, is_cold, copies):
    """Twice the L2 in 400-byte operands are twenty copies."""
    on_gpu = entry(machine.call, (torch.zeros(100),))
    (taken,) = sampling.interleave([on_gpu], 1e-9, cold=is_cold, device="cuda")
    assert taken.seconds == [pytest.approx(CALL)] * 5 and not taken.note
    seen = [call[0].data_ptr() for call in machine.log if isinstance(call, tuple)]
    assert len(set(seen)) == copies
    captured = seen[1:]
    assert len(captured) >= 128 and len(captured) % copies == 0
    assert captured == captured[:copies] * (len(captured) // copies)
    assert (on_gpu.operands[0].data_ptr() in seen) == (not is_cold)


def test_the_copies_of_a_graph_live_as_long_as_it(machine):
    operand = torch.zeros(100)
    calls = cold.rotation(entry(machine.call, (operand,)), True, "cuda")
    (_, works) = calls.work.args
    machine.log.clear()
    for work in works[:20]:
        work()
    assert len({call[0].data_ptr() for call in machine.log}) == 20


def test_copies_exceed_the_cache_whatever_its_size(machine, monkeypatch):
    for size, count in ((400, 3), (4000, 20), (400_000, cold._MOST)):
        monkeypatch.setattr(gpu, "l2_bytes", lambda size=size: size)
        assert len(cold.copies(entry(machine.call, (torch.zeros(100),)), "cuda")) == count


def test_given_results_take_turns_and_do_not_count_as_weight(machine):
    weight, out = torch.zeros(100), torch.zeros(300)
    writes = entry(machine.call, (weight, None, out), nbytes=400)
    sampling.interleave([writes], 1e-9, cold=True, device="cuda")
    calls = [call for call in machine.log if isinstance(call, tuple)]
    assert len({call[2].data_ptr() for call in calls}) == 20
    assert all(call[1] is None for call in calls)


def test_calls_that_wait_are_timed_without_a_graph_and_say_so(machine):
    def waits(operand):
        torch.cuda.synchronize()
        return machine.call(operand)

    (taken,) = sampling.interleave(
        [entry(waits, (torch.zeros(100),))], 1e-9, cold=True, device="cuda"
    )
    assert taken.seconds == [pytest.approx(CALL)] * 5
    expected = "timed without a graph: operation not permitted when stream is capturing"
    assert taken.note == expected and machine.log.count("enter") == machine.log.count("leave") == 1
    assert len({call[0].data_ptr() for call in machine.log if isinstance(call, tuple)}) == 20


def test_no_sample_is_short(machine):
    """A graph is as long as a sample, or is replayed until it is."""
    sampling.interleave([entry(machine.call)], 1e-9, device="cuda")
    graph = graphs._CALLS * CALL
    assert machine.log.count("replay") >= 5 * 2 * (1e-3 / graph - 0.5)


@pytest.mark.parametrize("op", sorted(CASES))
@pytest.mark.parametrize("rows", [1, 512])
def test_every_call_on_a_gpu_is_cold(op, rows):
    plan = Plan(op=op, rows=(rows,), device="cuda", modes=("exact",))
    cases = [case for weight in plan.weights() for group in plan.groups(weight) for case in group]
    assert cases and all(plan.cold(case) for case in cases)


def test_the_driver_is_asked_of_nvidia_smi(monkeypatch):
    def run(command, **options):
        assert command[0] == "nvidia-smi"
        return types.SimpleNamespace(stdout="600.1\n600.1\n")

    gpu.driver.cache_clear()
    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.driver() == "600.1"
    gpu.driver.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: exec("raise OSError"))
    assert gpu.driver() == "unknown"
    gpu.driver.cache_clear()


class CudaIsCpu(TorchFunctionMode):
    """Tensors asked for on a GPU are made on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def on_cpu(value):
            is_gpu = isinstance(value, (str, torch.device)) and str(value).startswith("cuda")
            return "cpu" if is_gpu else value

        kwargs = {name: on_cpu(value) for name, value in (kwargs or {}).items()}
        return function(*map(on_cpu, args), **kwargs)


def bench(monkeypatch, path, op):
    monkeypatch.setattr(probe, "_buffer_bytes", lambda device, quick: 1 << 20)
    monkeypatch.setattr(probe, "_GPU_MATRIX", 64)
    elapsed = gpu.elapsed
    monkeypatch.setattr(gpu, "elapsed", lambda work, repeats: elapsed(work, repeats) or 1e-3)
    line = f"bench {op} --device cuda --dtype bf16 --shapes N=64;K=128 --min-time 1e-9"
    backends = "reference,cuda,torch_copy,torch_fp32,torch_bf16"
    argv = [*line.split(), "--backends", backends, "-o", "json", "--out", str(path)]
    with CudaIsCpu():
        assert cli.main(argv) == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("op", ["dequantize_weight", "weight_only_linear"])
def test_the_command_from_end_to_end(machine, monkeypatch, tmp_path, op):
    document = bench(monkeypatch, tmp_path / "a.json", op)
    rows = {row["backend"]: row for row in document["rows"]}
    timed = {name for name, row in rows.items() if row["samples"]}
    peers = {"torch fp32", "torch bf16"} if op == "weight_only_linear" else {"torch copy fp32"}
    (peaks,) = document["peaks"].values()
    assert timed == {"lowbit reference"} | peers
    assert rows["lowbit cuda"]["note"].startswith("n/a: ")
    for name in timed:
        row = rows[name]
        assert row["cold"] and row["gpu"] == f"{NAME}, driver {DRIVER}" and row["bandwidth"] > 0
        assert row["peak"] == peaks[row["arithmetic"]] > 0
    assert saved.read(tmp_path / "a.json").machine == f"{NAME}, driver {DRIVER}"


@pytest.mark.parametrize(
    "cold_rows, words",
    [([True, True], "cold weights"), ([True, False], "up to M=16"), ([False], "warm weights")],
)
def test_the_heading_says_which_weights_are_cold(cold_rows, words):
    rows = [results.Row("c", "b", 1, samples=[1.0], bandwidth=1.0, cold=c) for c in cold_rows]
    text = results.heading(results.Run(rows, "cpu", [], (None, None)))
    assert text.endswith(words)
