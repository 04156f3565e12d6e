"""The adapters of other libraries: what they compute and refuse, and that they may be absent."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from lowbit.bench import cold, entries, sampling
from lowbit.bench.cases import LINEAR, Case
from lowbit.bench.entries import Layer, Workload
from lowbit.bench.peers import _affine, _ggml, _ggml_library, _packages
from lowbit.bench.weight_specs import WeightSpec

# adapter -> (module, bits of 256 4-bit codes g128 with zero points, arithmetic)
ADAPTERS = {
    "bitsandbytes_fp4": ("bitsandbytes", 4 + 16 / 128, "bf16"),
    "bitsandbytes_nf4": ("bitsandbytes", 4 + 16 / 128, "bf16"),
    "ggml_k": ("llama_cpp", None, "int8"),
    "ggml_legacy": ("llama_cpp", 4 + 16 / 32, "int8"),
    "onnxruntime_fp32": ("onnxruntime", 4 + (32 + 4) / 128, "fp32"),
    "onnxruntime_int8": ("onnxruntime", 4 + (32 + 32) / 128, "int8"),
    "openvino_bf16": ("openvino", 4 + (32 + 32) / 128, "bf16"),
    "openvino_int8": ("openvino", 4 + (32 + 8) / 128, "int8"),
    "torch_int8": ("torch", 8 + (32 + 32) / 256, "int8"),
}
INSTALLED = [name for name, facts in ADAPTERS.items() if importlib.util.find_spec(facts[0])]
OWN_CODES = [name for name in INSTALLED if name.startswith(("onnxruntime", "openvino"))]
# Of the result, relative: rounding of float32; of x, and of the result, to 8 bits of mantissa;
# of x to integers of 127 steps.
ERRORS = {"fp32": (1e-8, 1e-6), "bf16": (1e-3, 4e-3), "int8": (2e-3, 1.2e-2)}
# Of a single product 1 * w: w and the result in bfloat16, or the scale of x in float16.
ONE_PRODUCT = {"fp32": 1e-6, "bf16": 3 * 2**-9, "int8": 2**-11}
PLAIN = WeightSpec(64, 256, 4, 128, zeros="code", source="quantized")


def workload(m=16, dtype=torch.float32, x=None, **changes):
    case = Case(LINEAR, dataclasses.replace(PLAIN, **changes), (m,), dtype)
    work = Workload(case, Layer.make(case.weight, "cpu"))
    if x is not None:
        work.__dict__["args"] = (x, *work.args[1:])
    return work


def entry_or_reason(name, work):
    """The test is skipped where this CPU has not the peer's instructions (.ci/skipped.txt)."""
    _, entry = entries.entry_of(work, name)
    if isinstance(entry, str) and ("CPU has no" in entry or "needs AVX" in entry):
        pytest.skip(entry)
    return entry


def entry_of(name, work):
    entry = entry_or_reason(name, work)
    assert isinstance(entry, entries.Entry), entry
    return entry


def in_stated_arithmetic(work, name, unless):
    """The entry, whose errors are those of its arithmetic; None where its refusal says `unless`."""
    entry = entry_or_reason(name, work)
    if isinstance(entry, str):
        assert unless in entry
        return None
    least, most = ERRORS[entry.arithmetic]
    assert least < entries.errors(work, entry)[1] < most
    return entry


def test_every_adapter_of_another_library_is_tested():
    torch_alone = {"torch_bf16", "torch_copy", "torch_fp32", "torch_int4"}
    assert set(entries.peers()) == set(ADAPTERS) | torch_alone


def test_the_test_machine_has_these_peers():
    here = {facts[0] for facts in ADAPTERS.values() if importlib.util.find_spec(facts[0])}
    assert here >= {"onnxruntime", "openvino"} or not os.environ.get("CI")


def test_no_library_is_imported_before_its_adapter_is_asked():
    modules = sorted({facts[0] for facts in ADAPTERS.values()} - {"torch"} | {"onnx"})
    code = (
        "import sys; from lowbit.bench import bench_command, entries; assert entries.peers();"
        f"print([m for m in {modules} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("m", [1, 16])
@pytest.mark.parametrize("name", INSTALLED)
def test_result_bits_and_errors(name, m):
    work = workload(m)
    entry = entry_of(name, work)
    _, bits, arithmetic = ADAPTERS[name]
    assert entry.arithmetic == arithmetic
    if bits is not None:
        assert 8 * entry.operand_bytes == bits * entry.weight.numel()
    weight_error, compute_error = entries.errors(work, entry)
    least, most = ERRORS[arithmetic]
    assert least < compute_error < most
    assert (0.003 if bits and bits > 8 else 0.05) < weight_error < 0.15
    assert entry.call(*entry.operands).shape == (m, 64)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", INSTALLED)
def test_product_with_the_identity_is_the_stated_weight(name, symmetric):
    zeros = "midpoint" if symmetric else "code"
    entry = entry_of(name, workload(256, x=torch.eye(256), zeros=zeros))
    got = entry.call(*entry.operands).float().t()
    rounding = ONE_PRODUCT[entry.arithmetic]
    torch.testing.assert_close(got, entry.weight, rtol=rounding, atol=rounding / 100)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("name", INSTALLED)
def test_other_widths_run_or_say_why_not(name, bits):
    work = workload(bits=bits)
    entry = in_stated_arithmetic(work, name, unless="bits")
    if entry is not None and not name.startswith("torch"):
        assert bits < 8 * entry.operand_bytes / entry.weight.numel() < bits + 1.6


@pytest.mark.parametrize("name", OWN_CODES)
def test_our_codes_stand_for_our_weight(name):
    work = workload()
    torch.testing.assert_close(entry_of(name, work).weight, work.layer.plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [n for n in INSTALLED if n.startswith("onnxruntime")])
def test_onnxruntime_takes_a_ragged_last_group(name):
    work = workload(k=160, block_k=64)
    assert entries.errors(work, entry_of(name, work))[1] < 1.2e-2


@pytest.mark.parametrize("block_k", [16, 32, 96, 192, 384, 0])
@pytest.mark.parametrize("name", OWN_CODES)
def test_groups_of_other_lengths_run_in_the_stated_arithmetic_or_not_at_all(name, block_k):
    work = workload(k=384, block_k=block_k)
    in_stated_arithmetic(work, name, unless="groups")


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_x_is_taken_in_the_dtype_of_the_peer(name, dtype):
    work = workload(dtype=dtype)
    assert entries.errors(work, entry_of(name, work))[1] < 1.2e-2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", OWN_CODES)
def test_threads_are_as_many_as_those_of_torch(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (product,) = entry_of(name, workload()).operands
    finally:
        torch.set_num_threads(before)
    assert product.threads == threads


@pytest.mark.parametrize("name", [name for name in INSTALLED if not name.startswith("torch")])
def test_a_run_of_several_copies_computes_the_same_with_each(name, monkeypatch):
    """Copies of a constant are its rows moved on, which shows that each is one of its own."""
    entry = entry_of(name, workload())
    want = entry.call(*entry.operands)
    if entry.graph is None:
        monkeypatch.setattr(cold, "_BYTES", 3 * entry.operand_bytes)
        results = [entry.call(*copy) for copy in cold.copies(entry)]
    else:
        run = entry.graph(3)
        assert run() is run.results[0]
        results = run.results
    assert len(results) == 3
    for i, result in enumerate(results):
        moved = i if name in OWN_CODES else 0
        torch.testing.assert_close(result, want.roll(moved, -1), rtol=1e-4, atol=1e-4)


def test_packed_parameters_of_torch_are_made_anew(monkeypatch):
    entry = entry_of("torch_int8", workload())
    monkeypatch.setattr(cold, "_BYTES", 3 * entry.operand_bytes)
    copies = cold.copies(entry)
    assert len({id(packed) for (packed,) in copies}) == 3
    assert all(torch.equal(entry.call(*copy), entry.call(*copies[0])) for copy in copies)


REFUSED = {
    "bitsandbytes_nf4": {"block_k": 48, "k": 240, "says": "blocks of 32, 64"},
    "ggml_k": {"k": 320, "block_k": 64, "says": "blocks of 256 that divide K"},
    "ggml_legacy": {"k": 80, "block_k": 16, "says": "blocks of 32 that divide K"},
    "onnxruntime_fp32": {"bits": 8, "says": "codes of 4 bits"},
    "onnxruntime_int8": {"block_k": 48, "k": 240, "says": "groups of 16, 32"},
    "openvino_bf16": {"k": 160, "block_k": 64, "says": "that divide K"},
    "openvino_int8": {"k": 240, "block_k": 24, "says": "multiple of 16"},
}


@pytest.mark.parametrize("name", [name for name in INSTALLED if name in REFUSED])
def test_refusals_give_a_reason(name):
    changes = dict(REFUSED[name])
    says = changes.pop("says")
    reason = entry_or_reason(name, workload(**changes))
    assert isinstance(reason, str) and says in reason and "\n" not in reason


@pytest.mark.parametrize(
    "spec, says",
    [
        ({"table": "nf4"}, "integer codes"),
        ({"zeros": "value", "zero_dtype": torch.float16}, "codes with zero points"),
        ({"zeros": "none"}, "codes with zero points"),
        ({"block_n": 2}, "single rows"),
    ],
)
def test_weights_that_are_no_codes_of_rows(spec, says):
    spec = {"source": "codes", "zeros": "code"} | spec
    assert says in _affine.unsupported(workload(**spec), (4,))


def test_fractional_zero_points():
    work = workload(source="codes", zeros="code", zero_dtype=torch.float16)
    assert _affine.unsupported(work, (4,)) is None
    assert "zero points that are codes" in _affine.fractional_zeros(work)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("length", [1, 7, 16])
def test_packing_is_undone(bits, length):
    codes = torch.randint(1 << bits, (3, length), dtype=torch.uint8)
    packed = _affine.pack(codes, bits)
    assert packed.shape == (3, -(-length * bits // 8))
    assert torch.equal(_affine.unpack(packed, bits, length), codes)


@pytest.mark.parametrize("name", [n for n, facts in ADAPTERS.items() if facts[0] != "torch"])
def test_an_absent_library_is_a_reason(name, monkeypatch):
    adapter = entries.peers()[name]

    def absent(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(_packages.importlib, "import_module", absent)
    monkeypatch.setattr(_ggml_library.importlib.util, "find_spec", lambda module: None)
    monkeypatch.setattr(_ggml, "load", _ggml_library.load.__wrapped__)
    reason = adapter.unsupported(workload())
    assert "is not installed; pip install 'lowbit[peers" in reason and "\n" not in reason


def test_a_library_that_does_not_load_is_a_reason(monkeypatch):
    def broken(module):
        raise ImportError("libx.so: cannot open\nand more")

    monkeypatch.setattr(_packages.importlib, "import_module", broken)
    assert _packages.missing("x") == "x cannot be imported: libx.so: cannot open"


class Clock:
    """A time module in which other threads run for a while, and this one only sleeps."""

    def __init__(self, busy):
        self.now, self.busy = 0.0, busy

    def sleep(self, seconds):
        self.now += seconds

    def perf_counter(self):
        return self.now

    def process_time(self):
        return min(self.now, self.busy)


@pytest.mark.parametrize("busy, waited", [(0.0, 0.001), (0.004, 0.005), (9.0, 0.050)])
def test_a_sample_waits_for_threads_that_still_run_but_not_for_ever(monkeypatch, busy, waited):
    monkeypatch.setattr(sampling, "time", clock := Clock(busy))
    sampling._let_threads_rest()
    assert clock.now == pytest.approx(waited)
