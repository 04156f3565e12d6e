"""The host model: right kernels pass in every build, each kind of mistake is found by one."""

import pytest

from tests.ahead import ahead
from tests.host_sim import builder, compiler, runner

pytestmark = [
    pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler is installed"),
    *(ahead(builder.build_program, "check_model", flavour) for flavour in compiler.FLAVOURS),
]

SEEDS = {"plain": 100, "asan": 10, "tsan": 5}
RIGHT = (
    "reverse", "some end", "hand_off", "warp", "part of a warp", "election", "matrix", "shared",
    "reuse", "copy", "sum", "chain", "bulk", "pair", "look", "box", "box with swizzle",
    "box of planes", "box of planes with swizzle", "box store", "multicast", "product", "fence",
    "fence not needed", "callee", "budget", "remote", "remote until some end", "arrival", "graph",
    "relay", "lanes", "overwrite", "halves", "hand_over", "ring", "phases",
)  # fmt: skip

RACE, WRONG, IN_FLIGHT = "data race", "wrong value", "got some in flight"
# case, the build that must notice, its words
MISTAKES = (
    ("reverse, barrier missing", "plain", WRONG),
    ("reverse, barrier missing", "tsan", RACE),
    ("reverse, counts differ", "plain", "must agree on their number"),
    ("reverse, one warp away", "plain", "deadlock: 32 threads wait for sync_named_barrier 1"),
    ("reverse, half warps", "plain", "must be reached by whole warps"),
    ("away, one warp in each block", "plain", "wait for sync_named_barrier 1 (block 1,0,0"),
    ("hand_off, nobody reads", "plain", "32 threads wait for sync_named_barrier 2"),
    ("warp, lanes diverge", "plain", "must come to the same operation, got ballot and reduce_add"),
    ("warp, outside the mask", "plain", "must read a lane of its mask"),
    ("warp, some end", "plain", "; 12 lanes that reduce_add of warp 0 of block 0,0,0 names have"),
    ("warp, no sync", "plain", WRONG),
    ("warp, no sync", "tsan", RACE),
    ("part of a warp, missing lane", "plain", "must read a lane of its mask"),
    ("part of a warp, whole needed", "plain", "load_matrix_x4 must be called by whole warps"),
    ("election, first lane assumed", "plain", WRONG),
    ("matrix, load misaligned", "plain", "load_matrix_x4_transposed: the address must be aligned"),
    ("matrix, store misaligned", "plain", "store_matrix_x4: the address must be aligned to 16"),
    ("shared, overrun", "plain", "must be written within its arrays"),
    ("shared, overrun", "asan", "use-after-poison"),
    ("shared, overrun of dynamic", "asan", "use-after-poison"),
    ("shared, too little", "plain", "must be at least 256 bytes at launch, got 128"),
    ("shared, misaligned", "plain", "must be aligned to 16 bytes, got"),
    ("reuse, no barrier", "plain", WRONG),
    ("reuse, no barrier", "tsan", RACE),
    ("reuse, across two", "plain", "before them, got bytes 0 to 512 over 0 to 256"),
    ("reuse, cut differently", "plain", "in the same way: every array, also one that only"),
    ("reuse, misaligned", "plain", "must be aligned to 1024 bytes, got 16 behind"),
    ("reuse, overrun", "asan", "use-after-poison"),
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
    ("bulk, shown by another", "plain", "fence_mbarrier_init must stand between the initializa"),
    ("bulk, no fence", "tsan", RACE),
    ("bulk, fence without barrier", "tsan", RACE),
    ("bulk, ends in flight", "plain", "bulk copies to global memory before it ends, " + IN_FLIGHT),
    ("look, once", "plain", WRONG),
    ("look, once", "tsan", RACE),
    ("look, wrong parity", "plain", WRONG),
    ("look, for ever", "plain", "looks at a flag which no longer changes; 32 threads wait for its"),
    ("box, wrong rank", "plain", "must have as many coordinates as its tensor dimensions"),
    ("box of planes, wrong rank", "plain", "must have as many coordinates as its tensor"),
    ("box, misaligned", "plain", "tensor copy, shared memory: the address must be aligned to 128"),
    ("box, misaligned for its swizzle", "plain", "the address must be aligned to 256 bytes"),
    ("box, no wait", "plain", WRONG),
    ("box, no wait", "tsan", RACE),
    ("box store, no fence", "tsan", RACE),
    ("box store, no wait", "plain", "bulk copies to global memory before it ends, " + IN_FLIGHT),
    ("multicast, one does not wait", "plain", WRONG),
    ("multicast, one does not wait", "tsan", RACE),
    ("multicast, one announces nothing", "plain", "lacks 0 arrivals and -256 bytes"),
    ("multicast, no first sync", "plain", "must be initialized before its use"),
    ("multicast, to one that ended", "plain", "before that block ends, got one that ended"),
    ("multicast, no last sync", "plain", "before that block ends, got one that ended"),
    ("map, rank", "plain", "tensor map: rank must be 2 or 3, got 4"),
    ("map, element bytes", "plain", "elements must have 1, 2 or 4 bytes, got 8"),
    ("map, address", "plain", "the address must be aligned to 16 bytes, got 4"),
    ("map, empty", "plain", "a size must be 1 to 2^32, got 0"),
    ("map, too large", "plain", "a size must be 1 to 2^32, got 4294967297"),
    ("map, box", "plain", "a box must be 1 to 256 wide, got 257"),
    ("map, stride", "plain", "strides must be multiples of 16 bytes below 2^40, got 72"),
    ("map, stride too long", "plain", "multiples of 16 bytes below 2^40, got 1099511627776"),
    ("map, inner stride", "plain", "the innermost stride must be that of an element, got 8"),
    ("map, row of the box", "plain", "rows of the box must be multiples of 16 bytes, got 12"),
    ("map, row and swizzle", "plain", "rows of the box must be as wide as the swizzle, got 16"),
    ("product, no fence", "plain", "must stand between accesses to accumulators and a wgmma"),
    ("product, touched", "plain", "must be left alone between a wgmma and its wait"),
    ("product, no wait", "plain", "its wgmma before it ends, " + IN_FLIGHT),
    ("product, no proxy fence", "tsan", RACE),
    ("product, beyond the swizzle", "plain", "must lie within one row of the swizzle"),
    ("product, beyond the descriptor", "plain", "must fit 18 bits, got one beyond"),
    ("product, descriptors differ", "plain", "to the same wgmma with the same descriptors"),
    ("fence, sums written", "plain", "must stand between accesses to accumulators and a wgmma"),
    ("fence, a written", "plain", "must stand between writes to registers of A and a wgmma"),
    ("fence, written behind it", "plain", "must stand between accesses to accumulators and a wgm"),
    ("fence, sums overwritten", "plain", "must stand between accesses to accumulators and a wgmma"),
    ("fence, shapes differ", "plain", "must stand between products of two shapes on the same"),
    ("fence, a in flight", "plain", "of A must be left alone, and in scope, between a wgmma and"),
    ("callee, sums behind the fence", "plain", "between accesses to accumulators and a wgmma"),
    ("callee, a behind the fence", "plain", "between writes to registers of A and a wgmma"),
    ("budget, no shrink", "plain", "256 threads wait for the registers of grow_registers to 232"),
    ("budget, takes too many", "plain", "has 256 of its 64512 registers, which shrink_registers"),
    ("budget, one warp alone", "plain", "must be called by all four warps of a warpgroup, got one"),
    ("budget, numbers differ", "plain", "must come to the same number of registers, got two"),
    ("budget, no sync between", "plain", "must wait for each other between two changes of regis"),
    ("budget, grows to fewer", "plain", "must be at least the 168 that the warp has, got 160"),
    ("budget, shrinks to more", "plain", "must be at most the 168 that the warp has, got 176"),
    ("budget, no multiple of 8", "plain", "must be a multiple of 8 from 24 to 256"),
    ("budget, part of a warpgroup", "plain", "must be changed by whole warpgroups, got a last one"),
    ("remote, no sync", "plain", WRONG),
    ("remote, no sync", "tsan", RACE),
    ("remote, no last sync", "plain", "before that block ends, got one that ended"),
    ("arrival, one more", "plain", WRONG),
    ("arrival, one too few", "plain", "lacks 1 arrivals and 0 bytes"),
    ("arrival, not shown", "plain", "must be initialized before its use"),
    ("graph, host code left out", "plain", "wrong value: graph"),
    ("launch, threads", "plain", "threads of a block must be 1 to 1024, got 1025"),
    ("launch, blocks", "plain", "blocks must be 1 to 2147483647, got 0"),
    ("launch, shared memory", "plain", "must be at most 232448 bytes on this device, got 233472"),
    ("launch, cluster", "plain", "must be a multiple of the cluster's 2, got 3"),
)
# What the tsan build must notice with every seed: the order is wrong whatever the schedule.
MISORDERED = (
    "relay, no fence", "relay, no wait", "lanes, no fence", "lanes, no barrier",
    "overwrite, no fence", "overwrite, no barrier",
    "halves, no fence", "halves, no barrier", "halves, no wait", "hand_over, no fence",
    "hand_over, no barrier", "ring, given back too early", "phases, read too early",
    "pair, the other awaited",
)  # fmt: skip
# Launches that fail in a thread and by a deadlock.
STOPPED = ("reverse, counts differ", "hand_off, nobody reads")


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
@pytest.mark.parametrize("case", STOPPED)
def test_host_comes_behind_a_launch_that_failed(program, case, seed):
    done = runner.run(program("tsan"), case, seed, 1)
    assert done.returncode != 0
    assert RACE not in done.stdout + done.stderr


@pytest.mark.parametrize("seed", range(1, SEEDS["tsan"] + 1))
@pytest.mark.parametrize("case", MISORDERED)
def test_misordered_with_every_seed(program, case, seed):
    done = runner.run(program("tsan"), case, seed, 1)
    assert done.returncode != 0
    assert RACE in done.stdout + done.stderr


def test_every_case_is_judged(program):
    cases = runner.run(program("plain")).stdout.splitlines()
    assert sorted(cases) == sorted({*RIGHT, *MISORDERED, *(case for case, _, _ in MISTAKES)})


def test_deadlock_names_clusters_only_if_some_wait(program):
    done = runner.run(program("plain"), "reverse, one warp away", 1, 1)
    assert "deadlock" in done.stdout and "wait for room" not in done.stdout


def test_seeds_give_different_schedules(program):
    """The same mistake is found in some schedules only: seeds matter."""
    found = {
        runner.run(program("plain"), "sum, no barrier", seed, 1).returncode for seed in range(1, 60)
    }
    assert found == {0, 1}
