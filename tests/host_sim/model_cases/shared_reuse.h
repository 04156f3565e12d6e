// Cases of the host model: shared memory that two arrays use one after the other.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Reuse { kRight, kNoBarrier, kAcrossTwo, kCutDifferently, kMisaligned, kOverrun };

// Two arrays are read; then one over both is written and read.
template <Reuse kCase>
LOWBIT_KERNEL(kThreads)
reuse_kernel(uint32_t* out) {
  const uint32_t t = thread_index();
  SharedMemoryCutter whole, halves;
  const uint32_t words = kCase == Reuse::kCutDifferently && t == 9 ? 120 : 128;
  uint32_t* both = kCase == Reuse::kAcrossTwo ? nullptr : whole.take<uint32_t>(words, 16);
  auto* low = halves.take<uint32_t>(64, kCase == Reuse::kMisaligned ? 1024 : 16);
  auto* high = halves.take<uint32_t>(64, 16);
  if (kCase == Reuse::kAcrossTwo) both = whole.take<uint32_t>(words, 16);
  auto* behind = whole.take<uint32_t>(kThreads, 16);
  low[t] = t;
  high[t] = 1000 * t;
  sync_block();
  const uint32_t sum = low[63 - t] + high[63 - t];
  if (kCase != Reuse::kNoBarrier) sync_block();
  both[2 * t + (kCase == Reuse::kOverrun ? 1 : 0)] = sum;
  both[2 * t + 1 + (kCase == Reuse::kOverrun ? 1 : 0)] = 7;
  behind[t] = t;
  sync_block();
  out[t] = both[126 - 2 * t] + both[127 - 2 * t] + behind[63 - t];
}

template <Reuse kCase>
void reuse() {
  Words out(kThreads);
  launch("reuse", reuse_kernel<kCase>, {1, kThreads, 1024}, nullptr, out.data());
  for (uint32_t t = 0; t < kThreads; ++t) expect(out[t] == 1001 * t + 7 + 63 - t, "reuse");
}

const Cases kSharedReuseCases = {
    {"reuse", reuse<Reuse::kRight>},
    {"reuse, no barrier", reuse<Reuse::kNoBarrier>},
    {"reuse, across two", reuse<Reuse::kAcrossTwo>},
    {"reuse, cut differently", reuse<Reuse::kCutDifferently>},
    {"reuse, misaligned", reuse<Reuse::kMisaligned>},
    {"reuse, overrun", reuse<Reuse::kOverrun>},
};

}  // namespace
}  // namespace lowbit::cuda
