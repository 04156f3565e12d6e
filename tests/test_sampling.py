"""Samples in turns, which ones count, and copies that are in no cache: on a clock made up here."""

import itertools

import pytest
import torch

from lowbit.bench import cold, huge_pages, sampling
from lowbit.bench.entries import Entry


@pytest.fixture
def clock(monkeypatch):
    """Every call of an entry takes a millisecond."""
    seconds = 1e-3

    def timed(work, repeats, device):
        for _ in range(repeats):
            work()
        return seconds

    monkeypatch.setattr(sampling, "timed", timed)
    return seconds


def entry(name="A", call=lambda *operands: None, operands=(), **more):
    return Entry(name, call, operands, torch.zeros(1), **more)


def test_samples_are_taken_in_turns(clock):
    calls = []
    entries = [entry(name, lambda name=name: calls.append(name)) for name in "AB"]
    samples = sampling.interleave(entries, min_time=1e-9)
    assert [taken.seconds for taken in samples] == [[clock] * 5] * 2
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert turns == ["A", "B"] * (len(turns) // 2) and len(turns) >= 10
    assert all(not taken.probes and not taken.dropped for taken in samples)


def test_samples_last_as_long_as_asked(clock):
    (taken,) = sampling.interleave([entry()], min_time=0.1)
    assert len(taken.seconds) == 100


def test_a_probe_lies_between_every_two_samples(clock):
    events = []
    entries = [entry(name, lambda name=name: events.append(name)) for name in "AB"]

    def read():
        events.append("probe")
        return 10e9

    sampling.interleave(entries, min_time=1e-9, read=read)
    start = events.index("probe")
    turns = [name for name, _ in itertools.groupby(events[start:])]
    assert turns == ["probe", "A", "probe", "B"] * 5 + ["probe"]


def test_a_sample_counts_when_its_two_probes_agree(clock):
    probes = iter([10e9, 11e9, 20e9, 20e9, *[10e9] * 50])
    (taken,) = sampling.interleave([entry()], min_time=1e-9, read=lambda: next(probes))
    # dropped: 11 -> 20 and 20 -> 10
    assert taken.dropped == 2 and len(taken.seconds) == len(taken.probes) == 5
    assert taken.probes[:3] == [pytest.approx(2 / (1 / 10e9 + 1 / 11e9)), 20e9, 10e9]


def test_an_entry_gives_up_where_no_two_probes_agree(clock):
    probes = itertools.cycle((10e9, 20e9))
    (taken,) = sampling.interleave([entry()], min_time=1.0, read=lambda: next(probes))
    assert not taken.seconds and 20 < taken.dropped < 25


@pytest.mark.parametrize("a, b, same", [(10.0, 11.5, True), (11.6, 10.0, False), (5.0, 5.0, True)])
def test_probes_agree_within_fifteen_percent(a, b, same):
    assert sampling.agree(a, b) is sampling.agree(b, a) is same


def test_cold_calls_rotate_over_copies(clock, monkeypatch):
    monkeypatch.setattr(cold, "_BYTES", 1000)
    seen = []
    operand = torch.zeros(100)
    rotating = entry(call=lambda t: seen.append(t.data_ptr()), operands=(operand,))
    sampling.interleave([rotating], min_time=1e-9, cold=True)
    assert len(set(seen)) == 3 and operand.data_ptr() not in seen
    assert seen[:3] == seen[3:6]


def test_copies_hold_the_operands_and_their_strides():
    operands = (
        torch.arange(12.0).view(3, 4).t(),
        None,
        torch.arange(7, dtype=torch.uint8)[1:],
        torch.ones(2, 2, dtype=torch.float8_e8m0fnu),
        torch.empty(0),
        torch.tensor(3.0),
    )
    first, second = cold.copies(entry(operands=operands))[:2]
    for copy in (first, second):
        assert copy[1] is None
        for got, want in zip(copy, operands, strict=True):
            if want is not None:
                assert got.dtype == want.dtype and got.shape == want.shape
                assert got.stride() == want.stride() and got.tolist() == want.tolist()
    spans = [cold.byte_range(t) for copy in (first, second) for t in copy if t is not None]
    spans = sorted(span for span in spans if span[0] != span[1])
    assert all(a_stop <= b_start for (_, a_stop), (b_start, _) in itertools.pairwise(spans))


def test_copies_start_on_huge_pages(monkeypatch):
    (first, *rest) = cold.copies(entry(operands=(torch.zeros(1 << 20),)))
    assert len(rest) == 63 and first[0].data_ptr() % (2 << 20) == 0


def test_operands_that_are_no_tensors_are_made_anew():
    made = []

    def another():
        made.append(object())
        return (made[-1],)

    opaque = entry(operands=("first",), another=another, nbytes=64 << 20)
    assert opaque.operand_bytes == 64 << 20
    assert cold.copies(opaque) == [("first",), *((thing,) for thing in made)] and len(made) == 3


def test_the_products_of_a_graph_share_its_time(clock):
    counts = []

    def graph(count):
        counts.append(count)
        return lambda: None

    runs = entry(operands=(0,), graph=graph, nbytes=64 << 20)
    cold_samples, warm_samples = (
        sampling.interleave([runs], min_time=1e-9, cold=is_cold)[0] for is_cold in (True, False)
    )
    assert counts == [4]
    assert cold_samples.seconds == [clock / 4] * 5 and warm_samples.seconds == [clock] * 5


MAPS = """\
55d0c0000000-55d0c1000000 r-xp 00000000 fe:00 1234 /usr/bin/python3
55d0c2000000-55d0c3000000 rw-p 00000000 00:00 0                          [heap]
7f0000001000-7f0001c01000 rw-p 00000000 00:00 0
7f0010000000-7f0010400000 rw-p 00000000 00:00 0
7f0020000000-7f0022000000 rw-p 00000000 fe:00 99 /a/file
7f0030000000-7f0032000000 rw-s 00000000 00:01 7 /dev/zero (deleted)
7ffd00000000-7ffd02000000 rw-p 00000000 00:00 0                          [stack]
"""


def test_large_areas_of_our_own_are_moved_to_huge_pages(monkeypatch, tmp_path):
    (tmp_path / "maps").write_text(MAPS)
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "maps")
    mebibyte = 1 << 20
    assert list(huge_pages._areas()) == [
        (0x55D0C2000000, 16 * mebibyte),
        (0x7F0000200000, 26 * mebibyte),  # whole huge pages only
    ]
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "absent")
    assert not list(huge_pages._areas())


def test_moved_memory_holds_what_it_held():
    data = torch.arange(4 << 20)
    huge_pages.collapse()
    assert torch.equal(data, torch.arange(4 << 20))


@pytest.mark.parametrize("kind, moved", [("another", 1), ("graph", 1), ("tensors", 0)])
@pytest.mark.parametrize("is_cold", [True, False])
def test_what_peers_allocate_is_moved_before_they_are_timed(
    clock, monkeypatch, kind, moved, is_cold
):
    events = []
    monkeypatch.setattr(huge_pages, "collapse", lambda: events.append("collapse"))
    own = {"another": lambda: (0,)} if kind == "another" else {}
    own |= {"graph": lambda count: lambda: None} if kind == "graph" else {}
    operands = (torch.zeros(1 << 20),) if kind == "tensors" else (0,)
    entries = [entry(operands=operands, nbytes=128 << 20, **own)]
    sampling.interleave(entries, min_time=1e-9, cold=is_cold)
    assert len(events) == moved * is_cold
