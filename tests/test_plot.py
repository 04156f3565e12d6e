"""`lowbit plot` on rows made up here: which pictures, and what stands in them."""

import importlib.util
import pathlib
import re

import pytest

from lowbit import cli
from lowbit.bench import plots, results
from lowbit.bench.arguments import UsageError
from lowbit.bench.plots import selection
from lowbit.bench.rows import Row
from lowbit.bench.saved import Saved

pytest.importorskip("matplotlib")
from lowbit.bench.plots import style  # noqa: E402

ENTRIES = (  # backend, mode, arithmetic, planes, bits
    ("lowbit cpu (avx512)", "int8x2", "int8", 2, 4.2),
    ("lowbit cpu (avx512)", "bf16", "bf16", 1, 4.2),
    ("torch fp32", "", "fp32", 1, 32.0),
    ("a peer", "", "bf16", 1, 4.5),
)
PEAKS = {"fp32": 4e11, "bf16": 2e12, "int8": 4e12}


def row(entry, m=1, n=64, k=128, threads=2, **fields):
    backend, mode, arithmetic, planes, bits = entry
    size, flops = int(n * k * bits / 8), 2 * m * n * k
    seconds = (size / 20e9 + flops / 1e11) * 2 / threads
    fields = {"run": "", "code_bits": 4} | fields
    return Row(
        f"M={m} N={n} K={k}",
        backend,
        threads,
        op="weight_only_linear",
        mode=mode,
        m=m,
        n=n,
        k=k,
        samples=[seconds * factor for factor in (0.9, 1.0, 1.1, 1.0, 1.0)],
        bytes=size,
        flops=flops,
        operations=flops * planes,
        arithmetic=arithmetic,
        bits=bits,
        compute_error=1e-3,
        bandwidth=20e9,
        peak=PEAKS[arithmetic],
        **fields,
    )


def of(rows):
    return Saved(pathlib.Path("a.json"), rows, "a machine", "abc123", {})


ROWS = [row(e, m, n) for e in ENTRIES for m in (1, 16) for n in (64, 256)]


def test_every_picture_is_drawn_in_both_formats(tmp_path):
    scaling = [row(e, 16, 64, threads=t, run="threads") for e in ENTRIES[:2] for t in (1, 2)]
    written = plots.draw(of(ROWS + scaling), tmp_path / "new" / "folder")
    names = {"roofline", "times-m1", "times-m16", "scaling"}
    assert {path.name for path in written} == {f"{n}.{f}" for n in names for f in ("svg", "png")}
    for path in written:
        start = path.read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n" if path.suffix == ".png" else b"<?xml" in start


def text_of(path):
    return re.sub(r"<[^>]*>", "\n", path.read_text())


def test_pictures_name_backends_layers_and_limits(tmp_path):
    plots.draw(of(ROWS), tmp_path)
    roofline, times = (text_of(tmp_path / f"{name}.svg") for name in ("roofline", "times-m16"))
    for text in (roofline, times):
        assert "2 threads, a machine" in text and "N=64  K=128" in text and "N=256" in text
        for name in ("lowbit int8x2", "lowbit bf16", "torch fp32", "a peer"):
            assert name in text
    assert "memory 20 GB/s" in roofline and "fp32 400" in roofline
    assert "int8 in 2 planes 2000" in roofline and "bf16 2000" in roofline
    assert "M=1" in roofline and "M=16" in roofline
    assert "4.5 b   1e-3" in times and "bytes / bandwidth" in times


def test_the_same_rows_give_the_same_bytes(tmp_path):
    first, second = (plots.draw(of(ROWS[:8]), tmp_path / name) for name in "ab")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_one_backend_alone_has_no_bars_and_one_thread_count_no_scaling(tmp_path):
    written = plots.draw(of([row(ENTRIES[0], m) for m in (1, 4)]), tmp_path)
    assert {path.stem for path in written} == {"roofline"}


def test_nothing_to_draw_is_told(tmp_path):
    with pytest.raises(UsageError, match="a.json must hold timed rows of a matrix product"):
        plots.draw(of([Row("a call", "lowbit op", 1, samples=[1.0])]), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="--out must be a folder, got the file"):
        plots.draw(of(ROWS), tmp_path / "x")


def test_without_matplotlib_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'lowbit\[plot\]'"):
        plots.draw(of(ROWS), tmp_path)


def test_one_picture_shows_one_op_and_bit_width_and_each_row_once():
    rows = [row(ENTRIES[0], run="decode"), *(row(e, run="peers") for e in ENTRIES)]
    rows += [row(ENTRIES[0], run="low bits", code_bits=2)]
    found = selection.products(rows)
    assert len(found) == 4 and {r.run for r in found} == {"peers"}
    assert [selection.name(r) for r in found[:2]] == ["lowbit bf16", "lowbit int8x2"]


def test_the_thread_count_shown_is_the_one_of_the_peers():
    rows = [row(e, threads=2) for e in ENTRIES] + [row(ENTRIES[0], threads=4)]
    assert {r.threads for r in selection.most_threads(rows)} == {2}
    assert {r.threads for r in selection.most_threads(rows[-1:])} == {4}


def test_labels_are_kept_apart():
    assert style.spread([1.0, 1.01, 5.0], 0.5) == [1.0, 1.5, 5.0]
    assert style.spread([2.0, 1.9], 0.5) == [2.4, 1.9]


def test_peers_look_different():
    rows = [row((f"peer {i}", "", "fp32", 1, 4.0)) for i in range(20)]
    look = style.Look(rows)
    assert len({(look.line(r)["color"], look.line(r)["marker"]) for r in rows}) == 20


def test_the_command(capsys, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(results.as_json(results.Run(ROWS[:2], "cpu", ["bench"], (1.0, 1.0))))
    assert cli.main(["plot", str(path), "-o", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "roofline.png") in capsys.readouterr().out
    assert cli.main(["plot", str(tmp_path / "absent.json")]) == 2
