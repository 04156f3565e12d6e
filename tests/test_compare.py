"""`lowbit compare`: verdicts on samples made up here, and files of every version."""

import json
import pathlib
import random

import numpy as np
import pytest

from lowbit import cli
from lowbit.bench import compare, results, saved
from lowbit.bench.arguments import UsageError
from lowbit.bench.compare import compare as compare_files
from lowbit.bench.rows import Row

HERE = pathlib.Path(__file__).parent
OLD = HERE / "data/bench_version_1.json"
ABSENT = object()


def samples(center, spread=0.01, count=60, seed=0):
    draw = random.Random(seed)
    return [center * draw.gauss(1.0, spread) for _ in range(count)]


def row(taken, backend="lowbit cpu (avx512)", **fields):
    fields = {"op": "weight_only_linear", "mode": "exact", "m": 1, "n": 8, "k": 8} | fields
    return Row("M=1 N=8 K=8 4b g8 float32", backend, 2, samples=taken, **fields)


def written(path, *rows):
    run = results.Run(list(rows), "cpu", ["bench"], (1.0, 1.0))
    path.write_text(results.as_json(run))
    return path


def file(*rows):
    return saved.Saved(pathlib.Path("a.json"), list(rows), "machine", "commit", {})


@pytest.mark.parametrize(
    "factor, spread, verdict",
    [
        (0.8, 0.01, "faster"),
        (1.25, 0.01, "slower"),
        (1.0, 0.01, "same"),
        (1.02, 0.01, "same"),  # a difference that does not matter
        (1.05, 0.01, "undecided"),  # on the threshold
        (1.02, 0.6, "undecided"),
    ],
)
def test_verdicts(factor, spread, verdict):
    before, after = row(samples(1e-3, spread)), row(samples(factor * 1e-3, spread, seed=1))
    (found,) = compare_files(file(before), file(after))
    assert found.verdict == verdict
    assert found.interval[0] <= found.ratio <= found.interval[1]


def test_the_same_files_give_the_same_verdicts():
    pair = file(row(samples(1e-3, 0.2))), file(row(samples(1.1e-3, 0.2, seed=1)))
    first, second = (list(compare_files(*pair)) for _ in range(2))
    assert first == second


def test_a_larger_threshold_makes_more_the_same():
    pair = file(row(samples(1e-3))), file(row(samples(1.1e-3, seed=1)))
    assert [c.verdict for c in compare_files(*pair)] == ["slower"]
    assert [c.verdict for c in compare_files(*pair, threshold=0.2)] == ["same"]


def test_few_samples_decide_nothing():
    (found,) = compare_files(file(row([1.0] * 4)), file(row([2.0] * 9)))
    assert found.verdict == "undecided" and "fewer than 5 samples" in found.note


def test_neighbouring_samples_are_drawn_together():
    """A machine that drifts tells less than as many independent samples."""
    drifting = [1.0 + i / 60 for i in range(60)]
    shuffled = random.Random(0).sample(drifting, len(drifting))
    drawn = (compare._medians(taken, np.random.default_rng(0)) for taken in (drifting, shuffled))
    wide, narrow = map(np.std, drawn)
    assert wide > 1.5 * narrow


def test_two_states_of_the_memory_are_no_difference_of_the_program():
    """Half the bandwidth, twice the time: slower in seconds, the same in units of the probe."""
    fast = row(samples(1e-3), probes=[20e9] * 60, bandwidth=20e9)
    slow = row(samples(2e-3, seed=1), probes=[10e9] * 60, bandwidth=10e9)
    (found,) = compare_files(file(fast), file(slow))
    assert found.verdict == "undecided" and "bandwidth 20.0 -> 10.0 GB/s" in found.note
    worse = row(samples(4e-3, seed=1), probes=[10e9] * 60, bandwidth=10e9)
    (found,) = compare_files(file(fast), file(worse))
    assert found.verdict == "slower"


def test_a_coarser_result_is_told():
    before, after = row(samples(1.0), compute_error=1e-5), row(samples(0.5), compute_error=1e-3)
    (found,) = compare_files(file(before), file(after))
    assert found.verdict == "faster" and found.note == "compute error 1.0e-05 -> 1.0e-03"


def test_rows_are_matched_without_the_instruction_set_of_ours():
    before = [row(samples(1.0)), row(samples(1.0), "peer (v1)", mode="")]
    after = [row(samples(1.0), "lowbit cpu (amx)"), row(samples(1.0), "peer (v2)", mode="")]
    assert len(list(compare_files(file(*before), file(*after)))) == 1
    alone = compare.only_in_one(file(*before), file(*after))
    assert [len(names) for names in alone.values()] == [1, 1] and "peer (v1)" in alone["A"][0]


def test_files_of_version_1_can_be_read():
    found = saved.read(OLD)
    ours = [row for row in found.rows if row.own]
    assert {row.m for row in found.rows} == {1, 4, 16, 128}
    assert all((row.n, row.k, row.code_bits) == (4096, 4096, 4) for row in found.rows)
    assert {row.mode for row in ours} == {"exact"} and found.machine and found.commit
    assert all(row.op == "weight_only_linear" and row.median > 0 for row in found.rows)
    assert {c.verdict for c in compare_files(found, found)} <= {"same", "undecided"}


@pytest.mark.parametrize(
    "case, mode, name", [("M=1 N=8 K=9 4b g8 float32 bf16", "bf16", "M=1 N=8 K=9 4b g8 float32")]
)
def test_the_mode_of_version_1_stood_in_the_case(tmp_path, case, mode, name):
    document = json.loads(OLD.read_text())
    document["rows"] = [document["rows"][0] | {"case": case}]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    (found,) = saved.read(path).rows
    assert (found.case, found.mode, found.k) == (name, mode, 9)


def test_a_file_comes_back_as_it_was_written(tmp_path):
    before = row(samples(1.0), probes=samples(1e9), code_bits=4, run="r", dropped=3, speedup=2.0)
    assert saved.read(written(tmp_path / "a.json", before)).rows == [before]


@pytest.mark.parametrize(
    "text, said",
    [
        ("no json", "must be a file that `lowbit bench -o json` wrote"),
        ("[]", "must be a file that"),
        (
            '{"schema_version": 99}',
            "must have a schema_version of at most 2, got 99; update lowbit",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        saved.read(path)
    with pytest.raises(UsageError, match="FileNotFoundError"):
        saved.read(tmp_path / "absent.json")


def change(document, keys, value):
    """The document with another value, or without it, where the keys lead."""
    *path, last = keys
    for key in path:
        document = document[key]
    if value is ABSENT:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    "keys, value, said",
    [
        (["argv"], ABSENT, "KeyError: 'argv'"),
        (["rows"], ABSENT, "KeyError: 'rows'"),
        (["machine"], ABSENT, "KeyError: 'machine'"),
        (["versions"], ABSENT, "KeyError: 'versions'"),
        (["schema_version"], "2", "TypeError"),
        (["argv"], [1, 2], "AttributeError"),
        (["peaks"], [], "AttributeError"),
        (["peaks"], {"2": {"fma": None}}, "TypeError"),
        (["rows", 0], 5, "AttributeError"),
        (["rows", 0, "case"], ABSENT, "TypeError"),
        (["rows", 0, "threads"], "2", "TypeError: threads of a row is '2'"),
        (["rows", 0, "samples"], None, "TypeError: samples of a row is None"),
        (["rows", 0, "samples"], ["1"], "TypeError: samples of a row is"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_damaged_files_are_refused_in_a_sentence(tmp_path, version, keys, value, said):
    path = OLD if version == 1 else written(tmp_path / "a.json", row([1.0]))
    document = json.loads(path.read_text())
    change(document, keys, value)
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="must be a file that .* wrote, got " + said):
        saved.read(damaged)


@pytest.mark.parametrize("value", ["cannot tell: OSError", {}, ABSENT])
def test_a_processor_that_could_not_be_told_has_no_name(tmp_path, value):
    path = written(tmp_path / "a.json", row([1.0]))
    document = json.loads(path.read_text())
    change(document, ["machine", "cpu"], value)
    path.write_text(json.dumps(document))
    assert saved.read(path).machine == ""


@pytest.mark.parametrize(
    "options, code",
    [("", 0), ("--fail-on slower", 1), ("--fail-on faster", 0), ("--only peer", 1)],
)
def test_the_command(capsys, tmp_path, options, code):
    a = written(tmp_path / "a.json", row(samples(1e-3)), row(samples(1e-3), "only A"))
    b = written(tmp_path / "b.json", row(samples(2e-3)))
    assert cli.main(["compare", str(a), str(b), *options.split()]) == code
    out = capsys.readouterr().out
    assert "A: a.json" in out and "only in A: weight_only_linear" in out
    if "peer" in options:
        assert "no row has samples in both files" in out
    else:
        assert "| slower" in out and "2.000" in out and "1 slower" in out


def test_the_command_refuses_what_it_cannot_read(capsys, tmp_path):
    assert cli.main(["compare", str(tmp_path / "a"), str(OLD)]) == 2
    assert "lowbit compare: " in capsys.readouterr().err


def test_a_threshold_is_a_percentage(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare", "a", "b", "--threshold", "0"])
    assert "--threshold: must be a number of percent above 0" in capsys.readouterr().err
