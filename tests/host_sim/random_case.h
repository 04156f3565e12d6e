// What the random cases of the examples share.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "check_program.h"
#include "cuda/launch.cuh"

namespace lowbit::cuda::examples {

struct CaseRandom : check_program::Random {
  // Spread: the first draws of generators with neighbouring seeds are alike.
  explicit CaseRandom(uint64_t seed) : Random{std::mt19937_64(seed * 0x9e3779b97f4a7c15ull)} {}
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

// The seeds are those of the host model too.
template <typename Check>
int check_seeds(int argc, char** argv, const Check& check) {
  return check_program::check_seeds(argc, argv, [&](uint64_t seed) {
    model::settings.seed = seed;
    check(seed);
  });
}

}  // namespace lowbit::cuda::examples
