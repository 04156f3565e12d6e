// What the random cases of the examples share.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <random>
#include <vector>

#include "cuda/launch.cuh"

namespace lowbit::cuda::examples {

struct CaseRandom {
  // Spread: the first draws of generators with neighbouring seeds are alike.
  explicit CaseRandom(uint64_t seed) : engine(seed * 0x9e3779b97f4a7c15ull) {}

  std::mt19937_64 engine;
  int64_t below(int64_t end) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(end)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
};

// A launch, then two replays of the same as a graph: `prepare` before each, `check(turn)` behind.
// What runs behind the first must not need its host code, nor what it left in memory.
template <typename Prepare, typename Launch, typename Check>
void launch_and_replay(const Prepare& prepare, const Launch& launch, const Check& check) {
  prepare();
  launch();
  check(1);
  model::begin_capture();
  launch();
  model::end_capture();
  for (int turn = 2; turn <= 3; ++turn) {
    prepare();
    model::replay();
    check(turn);
  }
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Runs `check(seed)` for the seeds of the command line: the first, and how many.
template <typename Check>
int check_seeds(int argc, char** argv, const Check& check) {
  const uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int64_t count = argc > 2 ? std::strtoll(argv[2], nullptr, 10) : 100;
  if (argc > 3 || count < 1) {
    std::printf("usage: %s [first seed] [number of seeds, at least 1]\n", argv[0]);
    return 2;
  }
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(count); ++seed) {
    model::settings.seed = seed;
    try {
      check(seed);
    } catch (const std::exception& error) {
      std::printf("seed %lu: %s\n", seed, error.what());
      return 1;
    }
  }
  std::printf("%ld seeds ok\n", count);
  return 0;
}

}  // namespace lowbit::cuda::examples
