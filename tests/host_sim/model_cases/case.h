// What every case of the host model is made of.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "cuda/launch.cuh"
#include "cuda/tensor_map.cuh"

namespace lowbit::cuda {
namespace {

// By name: a right kernel has one word or more, a wrong one says behind a comma what is wrong.
using Cases = std::map<std::string, void (*)()>;
using Words = std::vector<uint32_t>;

constexpr uint32_t kThreads = 64;

void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("wrong value: %s\n", what);
  std::exit(1);
}

Words counted(uint32_t n) {
  Words words(n);
  for (uint32_t i = 0; i < n; ++i) words[i] = i;
  return words;
}

}  // namespace
}  // namespace lowbit::cuda
