// Cases of the host model: shared memory and cp.async into it.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

// ---- shared memory ----

enum class Shared { kRight, kOverrun, kOverrunOfDynamic, kTooLittle, kMisaligned };

template <Shared kCase>
LOWBIT_KERNEL(32)
shared_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, fixed, 31, 4);
  SharedMemoryCutter cutter;
  auto* first = cutter.take<uint32_t>(31, 16);
  auto* second = cutter.take<uint32_t>(32, 16);
  const uint32_t lane = lane_index();
  if (kCase == Shared::kOverrun || lane < 31) fixed[lane] = lane;
  if (kCase == Shared::kOverrunOfDynamic || lane < 31) first[lane] = lane;
  second[lane] = lane;
  if (kCase == Shared::kMisaligned) {
    uint32_t words[4];
    load_16_bytes(words, second + lane);
  }
  sync_warp();
  out[block_index() * 32 + lane] = fixed[lane % 31] + first[lane % 31] + second[lane];
}

template <Shared kCase>
void shared() {
  Words out(64);
  const int64_t bytes = kCase == Shared::kTooLittle ? 128 : 256;
  launch("shared", shared_kernel<kCase>, {2, 32, bytes}, nullptr, out.data());
  for (uint32_t i = 0; i < 64; ++i) expect(out[i] == i % 32 % 31 * 2 + i % 32, "shared");
}

// ---- cp.async ----

enum class Copy {
  kRight,
  kNoWait,
  kWaitTooShort,
  kNoBarrier,
  kMisaligned,
  kPastTheEnd,
  kEndsInFlight
};

template <Copy kCase>
LOWBIT_KERNEL(32)
copy_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 16);
  const uint32_t lane = lane_index();
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t at = half * 128 + lane * 4;
    copy_async_16(words + at, in + at + (kCase == Copy::kPastTheEnd ? 4 : 0) +
                                  (kCase == Copy::kMisaligned ? 1 : 0));
    commit_async_copies();
  }
  if (kCase == Copy::kEndsInFlight) return;
  if (kCase == Copy::kWaitTooShort) wait_async_copies<1>();
  if (kCase != Copy::kNoWait && kCase != Copy::kWaitTooShort) wait_async_copies<0>();
  if (kCase != Copy::kNoBarrier) sync_warp();
  for (uint32_t i = lane; i < 256; i += 32) out[i] = words[255 - i];
  wait_async_copies<0>();
}

template <Copy kCase>
void copy() {
  const Words in = counted(256);
  Words out(256);
  launch("copy", copy_kernel<kCase>, {1, 32}, nullptr, out.data(), in.data());
  for (uint32_t i = 0; i < 256; ++i) expect(out[i] == 255 - i, "copy");
}

const Cases kSharedMemoryCases = {
    {"shared", shared<Shared::kRight>},
    {"shared, overrun", shared<Shared::kOverrun>},
    {"shared, overrun of dynamic", shared<Shared::kOverrunOfDynamic>},
    {"shared, too little", shared<Shared::kTooLittle>},
    {"shared, misaligned", shared<Shared::kMisaligned>},
    {"copy", copy<Copy::kRight>},
    {"copy, no wait", copy<Copy::kNoWait>},
    {"copy, wait too short", copy<Copy::kWaitTooShort>},
    {"copy, no barrier", copy<Copy::kNoBarrier>},
    {"copy, misaligned", copy<Copy::kMisaligned>},
    {"copy, past the end", copy<Copy::kPastTheEnd>},
    {"copy, ends in flight", copy<Copy::kEndsInFlight>},
};

}  // namespace
}  // namespace lowbit::cuda
