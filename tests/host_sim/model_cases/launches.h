// Cases of the host model: graphs, and what launch() refuses.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

LOWBIT_KERNEL(1) add_kernel(uint32_t* word, uint32_t value) { *word += value; }

// A replay repeats launches with the arguments of their capture.
void graph() {
  uint32_t word = 0, value = 3;
  model::begin_capture();
  launch("add", add_kernel, {1, 1}, nullptr, &word, value);
  model::end_capture();
  expect(word == 0, "a captured launch does not run");
  value = 100;
  model::replay();
  model::replay();
  expect(word == 6, "graph");
}

// The host's zero is no part of the graph.
void graph_without_host_code() {
  uint32_t word = 7;
  const auto count_to_three = [&] {
    word = 0;
    launch("add", add_kernel, {1, 1}, nullptr, &word, 3u);
  };
  count_to_three();
  expect(word == 3, "launch");
  model::begin_capture();
  count_to_three();
  model::end_capture();
  word = 7;
  model::replay();
  expect(word == 3, "graph");
}

void launch_limits(const LaunchShape& shape) {
  uint32_t word = 0;
  launch("add", add_kernel, shape, nullptr, &word, 1u);
}

const Cases kLaunchCases = {
    {"graph", graph},
    {"graph, host code left out", graph_without_host_code},
    {"launch, threads", [] { launch_limits({1, 1025}); }},
    {"launch, blocks", [] { launch_limits({0, 1}); }},
    {"launch, shared memory", [] { launch_limits({1, 1, 228 << 10}); }},
    {"launch, cluster", [] { launch_limits({3, 1, 0, 2}); }},
};

}  // namespace
}  // namespace lowbit::cuda
