"""The command `lowbit`: what it prints, its exit codes, and that it says one sentence."""

import csv
import json
import math
import re
import shlex
import subprocess
import sys

import pytest
import torch

from lowbit import __version__, cli, native, registry
from lowbit.bench import bars, check, info, load, probe, report, results, runner, sampling
from lowbit.bench.rows import Row

GROUP = "must be -1 (one group a row) or an integer of at least 1"
FOREIGN = "must be left out with dequantize_weight"
TINY = ["--shapes", "M=1,3;N=64;K=64", "--group-size", "32", "--min-time", "1e-4"]
TINY += ["--mode", "exact"]


@pytest.fixture(autouse=True)
def small_probe(monkeypatch):
    """No test looks at times, so the probes need not be exact, and a noisy machine will do."""
    monkeypatch.setattr(sampling, "_AGREEMENT", math.inf)
    monkeypatch.setattr(probe, "_buffer_bytes", lambda device, quick: 1 << 20)
    monkeypatch.setattr(probe, "_MATRIX", 64)


def run(capsys, *argv):
    """(exit code, stdout, stderr) of the command."""
    try:
        code = cli.main(list(argv))
    except SystemExit as exit:
        code = exit.code
    return code, *capsys.readouterr()


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"lowbit {__version__}\n")


def test_info_names_every_backend_of_every_op(capsys):
    code, out, _ = run(capsys, "info", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["torch"] == torch.__version__
    assert set(facts["backends"]) == set(registry.OPS)
    for op, states in facts["backends"].items():
        assert set(states) == {row.backend for row in registry.OPS[op].rows}
        assert states["reference"] == "available"
    assert set(facts["libraries"]) == set(native.LIBRARIES)


def test_info_as_text_shows_the_variables_in_force(capsys, monkeypatch):
    monkeypatch.setenv("LOWBIT_STRICT", "1")
    code, out, _ = run(capsys, "info")
    assert code == 0 and "LOWBIT_STRICT: 1" in out and f"lowbit: {__version__}" in out


def test_info_survives_whatever_is_broken(capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("broken driver")

    for module, name in ((native, "libraries"), (native, "isa"), (native, "cpu_features")):
        monkeypatch.setattr(module, name, broken)
    monkeypatch.setattr(check, "unavailable", broken)
    monkeypatch.setattr(info, "_gpus", broken)
    code, out, _ = run(capsys, "info")
    assert code == 0 and out.count("cannot tell: RuntimeError: broken driver") >= 5


def test_support_prints_a_line_for_each_capability_row(capsys):
    """But for the reference, which covers all."""
    code, out, _ = run(capsys, "support")
    lines = out.splitlines()
    assert code == 0 and len({line.count("|") for line in lines}) == 1
    rows = [row for op in registry.OPS.values() for row in op.rows]
    shown = [row for row in rows if registry.BACKENDS[row.backend].rank > 0]
    assert len(lines) == len(shown) + 2
    assert out.strip() == report.support_table()


@pytest.mark.parametrize("op", sorted(registry.OPS))
def test_explain_prints_the_choice(capsys, op):
    code, out, _ = run(capsys, "explain", op, "--n", "16", "--k", "64", "--device", "cpu")
    assert code == 0 and out.startswith(f"{op}(device=cpu, ") and "runs on: " in out


@pytest.mark.parametrize("dtype, mode", [("float32", "int8x2"), ("bfloat16", "bf16")])
def test_explain_takes_the_mode_of_the_call(capsys, dtype, mode):
    argv = ["--n", "16", "--k", "64", "--dtype", dtype, "--device", "cpu"]
    _, out, _ = run(capsys, "explain", "weight_only_linear", *argv)
    assert f"mode={mode}" in out


def test_explain_takes_format_and_device(capsys):
    argv = ["--n", "8", "--k", "64", "--table", "nf4", "--zeros", "none", "--dtype", "bf16"]
    argv += ["--mode", "bf16", "--device", "cuda"]
    code, out, _ = run(capsys, "explain", "weight_only_linear", *argv)
    assert code == 0 and "device=cuda, dtype=bfloat16, element=table4, zeros=none" in out


@pytest.mark.parametrize("layout", ["panels", "canonical", "fragments"])
def test_explain_takes_the_layout(capsys, layout):
    """Of the module on the device, panels on the CPU, where nothing else is asked for."""
    argv = ["weight_only_linear", "--n", "16", "--k", "64", "--device", "cpu"]
    _, out, _ = run(capsys, "explain", *argv, "--layout", layout)
    assert f"layout={layout}," in out
    refused = "layout fragments is not among canonical, panels; call lowbit.prepack"
    assert (refused in out) == (layout == "fragments")
    _, out, _ = run(capsys, "explain", *argv)
    assert "layout=panels," in out or not native.load("_ops_cpu").loaded


@pytest.mark.parametrize(
    "options, zeros",
    [
        ("", "code"),
        ("--bits 1", "value"),
        ("--table nf4", "none"),
        ("--table nf4 --zeros code", "code"),
    ],
)
def test_explain_asks_for_the_zeros_that_quantize_weight_gives(capsys, options, zeros):
    _, out, _ = run(capsys, "explain", "weight_only_linear", "--k", "64", *options.split())
    assert f"zeros={zeros}, " in out


def test_help_has_an_example_of_each_command(capsys):
    code, out, _ = run(capsys, "--help")
    commands, examples = out.split("examples:")
    assert code == 0
    for name in ("info", "support", "explain", "check", "bench", "compare", "plot"):
        assert f"    {name} " in commands and f"  lowbit {name} " in examples


@pytest.mark.parametrize(("built_from", "shown"), [({"commit": "abc123"}, "abc123"), ({}, None)])
def test_info_outside_a_checkout_shows_the_commit_of_the_build(
    capsys, monkeypatch, tmp_path, built_from, shown
):
    monkeypatch.setattr(info, "_ROOT", tmp_path)
    monkeypatch.setattr(native, "build_info", lambda: built_from)
    _, out, _ = run(capsys, "info", "--json")
    assert json.loads(out).get("commit") == shown
    assert ("commit" in run(capsys, "info")[1]) == bool(shown)


def test_check_passes_and_lists_what_cannot_run(capsys):
    code, out, _ = run(capsys, "check", "--case", "M2x3")
    assert code == 0
    for op, definition in registry.OPS.items():
        for row in definition.rows:
            assert any(op in line and row.backend in line for line in out.splitlines())
            reason = check.unavailable(row.backend)
            assert reason is None or reason in out
    last = out.splitlines()[-1]
    assert re.fullmatch(r"(\d+) of \1 cases passed on \d+ backends? \(.*\) in \d+\.\d s", last)


def test_check_of_nothing_but_an_absent_backend_fails(capsys):
    backend = next((name for name in registry.BACKENDS if check.unavailable(name)), None)
    if backend is None:
        pytest.skip("every backend runs here")
    code, out, _ = run(capsys, "check", "dequantize_weight", "--backend", backend)
    assert code == 1 and "n/a: " in out
    assert out.splitlines()[-1].startswith(f"nothing was checked: {backend}: ")
    assert check.unavailable(backend) in out.splitlines()[-1]


def test_check_of_cases_that_no_kernel_covers_says_so(capsys, monkeypatch):
    monkeypatch.setattr(check, "declined", lambda *args: "not covered")
    code, out, _ = run(capsys, "check", "weight_only_linear", "--backend", "reference")
    assert code == 1
    assert out.endswith("nothing was checked: no kernel asked for covers these cases\n")


def test_check_reports_a_wrong_result(capsys, monkeypatch):
    right = check.run
    monkeypatch.setattr(check, "run", lambda *args: right(*args) + 1.0)
    argv = ["weight_only_linear", "--backend", "reference", "--case", "M131"]
    code, out, _ = run(capsys, "check", *argv)
    assert code == 1 and "FAILED" in out and "first at [0, 0]" in out
    assert "repro: lowbit check weight_only_linear --backend reference --seed 0 --case" in out
    assert out.splitlines()[-1].startswith("0 of 1 cases passed on 1 backend (reference) in ")


@pytest.mark.parametrize(
    "argv, sentence",
    [
        ("check no_op", "OP: must be one of"),
        ("check --backend cpu,no_backend", "--backend: must be one of"),
        ("check --isa sse9", f"--isa: must be one of {', '.join(native.ISAS)}, got 'sse9'"),
        ("check --case no_case", "--case must be part of the name of a case, got 'no_case'"),
        ("bench --bits 9", "--bits: must be an integer in 1..8, got '9'"),
        ("bench --group-size 0", f"--group-size: {GROUP}, got '0'"),
        ("explain dequantize_weight --group-size -2", f"--group-size: {GROUP}, got '-2'"),
        ("bench --shapes N=3", "--shapes: must look like"),
        ("bench --shapes ;", "--shapes: must look like"),
        ("bench --model gpt5", "--model: must be one of llama2-7b, llama3-8b"),
        ("bench --model llama3-8b --shapes N=1;K=2", "--model must be left out where --shapes has"),
        ("bench dequantize_weight --assert-bars", "--assert-bars must go with an op that has bars"),
        ("bench --assert-bars --bits 3", "--bits must be left out with --assert-bars"),
        ("bench --mode exact,int9", "--mode: must be one of exact"),
        ("bench --bits 2,9", "--bits: must be an integer in 1..8, got '9'"),
        ("bench --shapes M=1;N=a;K=2", "--shapes: must be an integer of at least 1, got 'a'"),
        ("bench --threads 0", "--threads: must be an integer of at least 1, got '0'"),
        ("bench --min-time x", "--min-time: must be a positive number of seconds, got 'x'"),
        ("bench --dtype int8", "--dtype: must be one of float32, float16, bfloat16, got 'int8'"),
        ("bench --out /dev/null", "--out must name a file that can be written, got /dev/null"),
        ("bench --out /dev/null/x", "--out must name a file that can be written, got /dev/null/x"),
        ("explain dequantize_weight --mode bf16", f"--mode {FOREIGN}, which has no mode, got bf16"),
        ("explain dequantize_weight --m 0", f"--m {FOREIGN}, which has no rows, got 0"),
        ("bench dequantize_weight --mode exact", f"--mode {FOREIGN}, which has no mode, got exact"),
        (
            "bench dequantize_weight --shapes M=1,2;N=4;K=4",
            f"--shapes M {FOREIGN}, which has no rows, got 1,2",
        ),
        (
            "explain weight_only_linear_backward --mode fp16",
            "--mode must be left out with weight_only_linear_backward, which has no mode, got fp16",
        ),
        ("explain weight_only_linear --table nf4 --bits 3", "--table must go with --bits 4"),
        (
            "explain dequantize_weight --layout panels",
            "--layout must go with weight_only_linear or",
        ),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(capsys, argv, sentence):
    code, out, err = run(capsys, *argv.split())
    assert code == 2 and not out
    assert sentence in err and len(err.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_bench_refuses_a_device_that_is_not_there(capsys):
    code, _, err = run(capsys, "bench", "--device", "cuda")
    assert code == 2 and "--device must be one that torch sees, got cuda" in err


def test_bench_prints_markdown_with_a_repro_line(capsys):
    code, out, _ = run(capsys, "bench", *TINY)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith(f"lowbit {__version__}")
    assert "GB/s" in lines[0] and "fp32 peak" in lines[0] and "threads" in lines[0]
    header = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert tuple(header) == results.COLUMNS
    assert ("load average" in lines[0]) == (load.load_average() is not None)
    assert lines[-1].startswith("repro: lowbit bench --shapes 'M=1,3;N=64;K=64'")


def test_bench_writes_json_with_raw_samples(capsys, tmp_path):
    path = tmp_path / "new" / "folders" / "run.json"
    argv = ["bench", *TINY, "-o", "json", "--out", str(path)]
    code, out, _ = run(capsys, *argv)
    document = json.loads(path.read_text())
    assert code == 0 and not out and document["schema_version"] == results.SCHEMA_VERSION
    assert document["argv"] == argv and document["repro"] == shlex.join(["lowbit", *argv])
    assert document["versions"]["torch"] == torch.__version__
    assert document["versions"]["lowbit"] == __version__
    assert document["machine"]["cpu"]["model"] == info.cpu_model()
    assert document["threads"] == [torch.get_num_threads()]
    assert set(document["load"]) == {"before", "after"}
    assert document["load"]["before"] is None or document["load"]["before"] >= 0
    assert all("samples" in row for row in document["rows"])
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]
    own = [
        row for row in document["rows"] if row["backend"].startswith("lowbit") and row["samples"]
    ]
    assert {row["case"].split()[0] for row in own} == {"M=1", "M=3"}
    for row in own:
        assert len(row["samples"]) >= 5 and min(row["samples"]) > 0
        assert row["compute_error"] < 1e-5 and 4 < row["bits"] < 6 and row["bandwidth"] > 0


def test_bench_writes_csv(capsys):
    code, out, _ = run(capsys, "bench", *TINY, "-o", "csv", "--backends", "reference")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3
    assert lines[0].startswith("case,threads,backend,mode,arithmetic,p25 us")
    for line in csv.DictReader(lines):
        for name in results.COLUMNS[5:-1]:
            assert line[name] == "" if name == "x torch fp32" else float(line[name]) >= 0
        assert (line["mode"], line["arithmetic"]) == ("exact", "fp32")
        assert (line["lowbit"], line["torch"]) == (__version__, torch.__version__)
        assert line["machine"] == info.cpu_model() and line["device"] == "cpu"
        assert line["repro"].startswith("lowbit bench --shapes")


def test_bench_takes_the_layers_of_a_model(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "run", lambda plans, peaks: seen.extend(plans) or iter(()))
    assert (
        run(capsys, "bench", "--model", "llama3-8b", "--shapes", "M=2,3", "--bits", "2,4")[0] == 0
    )
    (plan,) = seen
    assert plan.layers == ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336))
    assert plan.rows == (2, 3) and plan.bits == (2, 4)
    assert plan.modes == () and plan.prepack and plan.min_time == 0.5


LENIENT = {"name": "lenient", "run": "r", "kind": "limit", "factor": 1e9, "plus_ms": 1e9}
STRICT = {"name": "strict", "run": "r", "kind": "limit", "factor": 1e-9, "plus_ms": 0.0}


@pytest.fixture
def judged_by(monkeypatch):
    """The bars of the op are those given, on a tiny layer."""

    def use(*chosen):
        runs = {"r": {"rows": [1], "modes": ["exact"], "backends": ["reference"], "min_time": 1e-4}}
        found = bars.Bars("weight_only_linear", ((32, 128),), runs, chosen)
        monkeypatch.setattr(bars, "read", lambda op: found)

    return use


@pytest.mark.parametrize("chosen, code", [((LENIENT,), 0), ((LENIENT, STRICT), 1)])
def test_a_missed_bar_is_an_exit_status(capsys, judged_by, chosen, code):
    judged_by(*chosen)
    got, out, _ = run(capsys, "bench", "--assert-bars")
    assert got == code and f"{len(chosen) - code} of {len(chosen)} bars passed" in out
    assert ("FAIL" in out) == bool(code) and "| lenient" in out and "repro: lowbit bench" in out


def test_bars_stand_in_the_file_and_beside_it(capsys, judged_by, tmp_path):
    judged_by(STRICT)
    path = tmp_path / "run.json"
    code, out, _ = run(capsys, "bench", "--assert-bars", "-o", "json", "--out", str(path))
    document = json.loads(path.read_text())
    assert code == 1 and "FAIL" in out
    assert [bar["bar"] for bar in document["bars"]] == ["strict"]
    assert document["rows"][0]["run"] == "r" and document["peaks"]
    code, out, err = run(capsys, "bench", "--assert-bars", "-o", "json")
    assert json.loads(out)["bars"] and "FAIL" in err


def test_a_file_that_cannot_be_written_stays_as_it_was(monkeypatch, tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")

    def full(self, text):
        self.touch()
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(type(path), "write_text", full)
        results.write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    results.write(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_bench_does_not_time_a_wrong_result(capsys, monkeypatch):
    right = check.run
    monkeypatch.setattr(check, "run", lambda *args: right(*args) + 1.0)
    code, out, _ = run(capsys, "bench", *TINY, "--backends", "reference")
    assert code == 1 and out.count("wrong result, not timed") == 2


def test_interrupted_bench_reports_what_it_has(capsys, monkeypatch):
    def interrupted(plans, peaks):
        yield Row("a case", "a backend", 1, note="n/a: made up")
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    code, out, _ = run(capsys, "bench", *TINY)
    assert code == 130 and "a backend" in out


def test_interrupted_check_ends_without_a_traceback(capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check", interrupt)
    code, _, err = run(capsys, "check", "weight_only_linear", "--backend", "reference")
    assert code == 130 and err == "interrupted\n"


def test_imports_stay_lean():
    code = (
        "import sys, lowbit; assert 'lowbit.bench' not in sys.modules; import lowbit.cli;"
        "assert not {'rich', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_is_the_command():
    command = [sys.executable, "-m", "lowbit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"lowbit {__version__}\n"
