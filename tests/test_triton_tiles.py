"""The choice of tiles for Triton's linears: a pure function, printed and bounded."""

import itertools

import pytest

from lowbit.triton_kernels import tiles

H200 = tiles.Device(90, 132)
SHAPES = ((4096, 4096), (8192, 8192), (28672, 8192), (1024, 4096), (33, 160), (1, 1))


def choose(m, n, k, device=H200, bits=4, columns=128, itemsize=2):
    return tiles.choose(m, n, k, bits, columns, itemsize, device)


def test_it_can_be_printed():
    assert str(choose(1, 4096, 4096)) == (
        "Tiles(rows=64, block_m=16, splits=8, splits_of_part=1, warps=4, stages=4)"
    )


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_splits_do_not_depend_on_rows_of_x(n, k, itemsize):
    """As the order of sums follows from them, and nothing else of it from the rows."""
    chosen = {choose(m, n, k, itemsize=itemsize).splits for m in (1, 16, 17, 300, 70000)}
    assert len(chosen) == 1


def test_few_rows_fill_the_gpu():
    for n, k in SHAPES[:4]:
        cut = choose(1, n, k)
        programs = -(-n // cut.rows) * cut.splits
        assert cut.splits_of_part == 1
        assert programs >= 0.9 * H200.multiprocessors
        assert cut.splits <= -(-k // 128) / 2  # two chunks each


def test_many_rows_need_no_memory_for_parts():
    for m in (257, 4096, 10**6):
        cut = choose(m, 4096, 4096)
        assert cut.splits_of_part == cut.splits


def test_a_weight_that_fills_the_gpu_is_split_less():
    splits = [choose(1, n, 8192).splits for n in (1024, 8192, 28672, 10**6)]
    assert splits == sorted(splits, reverse=True)
    assert splits[0] > 8
    assert splits[-1] == 1


def test_registers_let_programs_be_resident():
    few, many = choose(1, 4096, 4096), choose(300, 4096, 4096)
    assert tiles.most_registers(few, integers=True) == 128
    assert tiles.most_registers(few, integers=False) == 168
    assert tiles.most_registers(many, integers=True) is None


def test_few_variants_are_compiled():
    """The heights of tiles are the only thing that rows of x change in the compiled kernel."""
    for itemsize, most in ((2, 2), (4, 4)):
        found = {
            (cut.rows, cut.block_m, cut.warps, cut.stages)
            for m, (n, k) in itertools.product((*range(1, 100), 5000), SHAPES)
            for cut in [choose(m, n, k, itemsize=itemsize)]
        }
        assert len(found) <= most


def test_a_tuned_entry_comes_first(monkeypatch):
    monkeypatch.setitem(tiles.TUNED, (90, 4096, 4096, 4), 3)
    assert choose(1, 4096, 4096).splits == 3
    assert choose(1, 4096, 4096, tiles.Device(80, 108)).splits != 3


def test_devices_between_known_ones():
    assert tiles.bandwidth(tiles.Device(86, 84)) == tiles.BANDWIDTH[80]
    assert tiles.bandwidth(tiles.Device(121, 48)) == tiles.BANDWIDTH[120]
    assert tiles.bandwidth(tiles.Device(75, 40)) == tiles.BANDWIDTH[80]
