"""The host model: right kernels pass in every build, each kind of mistake is found by one."""

import pytest

from tests.host_sim import builder, compiler, runner

pytestmark = pytest.mark.skipif(
    compiler.find_compiler() is None, reason="no C++ compiler is installed"
)

SEEDS = {"plain": 100, "asan": 10, "tsan": 5}
RIGHT = (
    "reverse", "hand_off", "warp", "shared", "copy", "sum", "chain", "bulk", "product", "remote",
    "graph", "relay", "overwrite", "halves", "hand_over", "ring", "phases",
)  # fmt: skip

RACE, WRONG, IN_FLIGHT = "data race", "wrong value", "got some in flight"
# case, the build that must notice, its words
MISTAKES = (
    ("reverse, barrier missing", "plain", WRONG),
    ("reverse, barrier missing", "tsan", RACE),
    ("reverse, counts differ", "plain", "must agree on their number"),
    ("reverse, one thread away", "plain", "deadlock: 63 threads wait for sync_block"),
    ("reverse, half warps", "plain", "must be reached by whole warps"),
    ("hand_off, nobody reads", "plain", "32 threads wait for sync_named_barrier 2"),
    ("warp, lanes diverge", "plain", "must come to the same operation, got ballot and reduce_add"),
    ("warp, outside the mask", "plain", "must read a lane of its mask"),
    ("warp, no sync", "plain", WRONG),
    ("warp, no sync", "tsan", RACE),
    ("shared, overrun", "plain", "must be written within its arrays"),
    ("shared, overrun", "asan", "use-after-poison"),
    ("shared, overrun of dynamic", "asan", "use-after-poison"),
    ("shared, too little", "plain", "must be at least 256 bytes at launch, got 128"),
    ("shared, misaligned", "plain", "must be aligned to 16 bytes, got"),
    ("copy, no wait", "plain", WRONG),
    ("copy, wait too short", "plain", WRONG),
    ("copy, no barrier", "tsan", RACE),
    ("copy, misaligned", "plain", "copy_async, source: the address must be aligned to 16 bytes"),
    ("copy, past the end", "asan", "heap-buffer-overflow"),
    ("copy, ends in flight", "plain", "its cp.async before it ends, " + IN_FLIGHT),
    ("sum, not reset", "plain", WRONG),
    ("sum, relaxed", "tsan", RACE),
    ("sum, no barrier", "tsan", RACE),
    ("chain, backwards", "plain", "looks at a flag which no longer changes"),
    ("written constant", "tsan", RACE),
    ("bulk, no wait", "plain", WRONG),
    ("bulk, no wait", "tsan", RACE),
    ("bulk, too few bytes", "plain", "lacks 0 arrivals and -16 bytes"),
    ("bulk, init unordered", "plain", "must be initialized before its use"),
    ("bulk, no fence", "tsan", RACE),
    ("bulk, fence without barrier", "tsan", RACE),
    ("bulk, ends in flight", "plain", "bulk copies to global memory before it ends, " + IN_FLIGHT),
    ("product, no fence", "plain", "must stand between accesses to accumulators and a wgmma"),
    ("product, touched", "plain", "must be left alone between a wgmma and its wait"),
    ("product, no wait", "plain", "its wgmma before it ends, " + IN_FLIGHT),
    ("product, no proxy fence", "tsan", RACE),
    ("product, beyond the swizzle", "plain", "must lie within one row of the swizzle"),
    ("product, descriptors differ", "plain", "to the same wgmma with the same descriptors"),
    ("remote, no sync", "plain", WRONG),
    ("remote, no sync", "tsan", RACE),
    ("remote, no last sync", "plain", "before that block ends, got one that ended"),
    ("launch, threads", "plain", "threads of a block must be 1 to 1024, got 1025"),
    ("launch, blocks", "plain", "blocks must be 1 to 2147483647, got 0"),
    ("launch, shared memory", "plain", "must be at most 232448 bytes on this device, got 233472"),
    ("launch, cluster", "plain", "must be a multiple of the cluster's 2, got 3"),
)
# What the tsan build must notice with every seed: the order is wrong whatever the schedule.
MISORDERED = (
    "relay, no fence", "relay, no wait", "overwrite, no fence", "overwrite, no barrier",
    "halves, no fence", "halves, no barrier", "halves, no wait", "hand_over, no fence",
    "hand_over, no barrier", "ring, given back too early", "phases, read too early",
)  # fmt: skip


@pytest.fixture(scope="module")
def program():
    return lambda flavour: builder.build_program("check_model", flavour)


@pytest.mark.parametrize("flavour", compiler.FLAVOURS)
@pytest.mark.parametrize("case", RIGHT)
def test_right_kernels(program, case, flavour):
    done = runner.run(program(flavour), case, 1, SEEDS[flavour])
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@pytest.mark.parametrize(("case", "flavour", "words"), MISTAKES)
def test_mistakes(program, case, flavour, words):
    done = runner.run(program(flavour), case, 1, SEEDS[flavour])
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("seed", range(1, SEEDS["tsan"] + 1))
@pytest.mark.parametrize("case", MISORDERED)
def test_misordered_with_every_seed(program, case, seed):
    done = runner.run(program("tsan"), case, seed, 1)
    assert done.returncode != 0
    assert RACE in done.stdout + done.stderr


def test_every_case_is_judged(program):
    cases = runner.run(program("plain")).stdout.splitlines()
    assert sorted(cases) == sorted({*RIGHT, *MISORDERED, *(case for case, _, _ in MISTAKES)})


def test_seeds_give_different_schedules(program):
    """The same mistake is found in some schedules only: seeds matter."""
    found = {
        runner.run(program("plain"), "sum, no barrier", seed, 1).returncode for seed in range(1, 60)
    }
    assert found == {0, 1}
