// Cases of the host model: mbarriers and the copy engine.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Bulk {
  kRight,
  kNoWait,
  kTooFewBytes,
  kInitUnordered,
  kShownByAnother,
  kNoFence,
  kFenceWithoutBarrier,
  kEndsInFlight
};

// In by the copy engine, doubled by the threads, out by the copy engine.
template <Bulk kCase>
LOWBIT_KERNEL(kThreads)
bulk_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) init_mbarrier(come, 1);
  if (kCase == Bulk::kShownByAnother) sync_block();
  if (t == (kCase == Bulk::kShownByAnother ? 32 : 0)) fence_mbarrier_init();
  if (kCase != Bulk::kInitUnordered) sync_block();
  if (t == 0) {
    arrive_mbarrier_expecting(come, kCase == Bulk::kTooFewBytes ? 1008 : 1024);
    bulk_copy_to_shared(words, in, 1024, come);
  }
  if (kCase != Bulk::kNoWait) wait_mbarrier(come, 0);
  for (uint32_t i = t; i < 256; i += kThreads) words[i] *= 2;
  if (kCase != Bulk::kNoFence) fence_async_proxy();
  if (kCase != Bulk::kFenceWithoutBarrier) sync_block();
  if (t == 0) {
    bulk_copy_to_global(out, words, 1024);
    commit_bulk_stores();
    if (kCase != Bulk::kEndsInFlight) wait_bulk_stores<0>();
  }
}

template <Bulk kCase>
void bulk() {
  alignas(16) uint32_t in[256], out[256];
  for (uint32_t i = 0; i < 256; ++i) in[i] = i;
  launch("bulk", bulk_kernel<kCase>, {1, kThreads}, nullptr, +out,
         static_cast<const uint32_t*>(in));
  for (uint32_t i = 0; i < 256; ++i) expect(out[i] == 2 * i, "bulk");
}

// ---- two copies, of which each has an mbarrier ----

enum class Pair { kRight, kOtherAwaited };

// The first has mostly come when the second starts: who wants its words must wait for it all the
// same.
template <Pair kCase>
LOWBIT_KERNEL(kThreads)
pair_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 2 * kThreads, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 2, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(come, 1);
    init_mbarrier(come + 1, 1);
    fence_mbarrier_init();
  }
  sync_block();
  if (t > 0 && t < 32) return;  // a wait by any lane of the warp would be one for all
  for (uint32_t i = 0; t == 0 && i < 2; ++i) {
    arrive_mbarrier_expecting(come + i, kThreads * 4);
    bulk_copy_to_shared(words + i * kThreads, in + i * kThreads, kThreads * 4, come + i);
    for (uint32_t turn = 0; turn < 200; ++turn) sync_warp(1);
  }
  if (t >= 32) {
    wait_mbarrier(come + (kCase == Pair::kOtherAwaited ? 1 : 0), 0);
    out[t - 32] = words[t - 32];
  }
  wait_mbarrier(come, 0);
  wait_mbarrier(come + 1, 0);
}

template <Pair kCase>
void pair() {
  alignas(16) uint32_t in[2 * kThreads];
  for (uint32_t i = 0; i < 2 * kThreads; ++i) in[i] = i;
  Words out(32);
  launch("pair", pair_kernel<kCase>, {1, kThreads}, nullptr, out.data(),
         static_cast<const uint32_t*>(in));
  for (uint32_t i = 0; i < 32; ++i) expect(out[i] == i, "pair");
}

// ---- looking at an mbarrier in place of waiting ----

enum class Look { kRight, kOnce, kWrongParity, kForEver };

template <Look kCase>
LOWBIT_KERNEL(kThreads)
look_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  LOWBIT_SHARED_ARRAY(Mbarrier, written, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) init_mbarrier(written, kCase == Look::kForEver ? 33 : 32);
  sync_block();
  if (t < 32) {
    words[t] = t;
    arrive_mbarrier(written);
  } else {
    const uint32_t parity = kCase == Look::kWrongParity ? 1 : 0;
    if (kCase == Look::kOnce) {
      test_mbarrier(written, parity);
    } else {
      while (!test_mbarrier(written, parity)) {
      }
    }
    out[t - 32] = words[63 - t];
  }
}

template <Look kCase>
void look() {
  Words out(32);
  launch("look", look_kernel<kCase>, {1, kThreads}, nullptr, out.data());
  for (uint32_t i = 0; i < 32; ++i) expect(out[i] == 31 - i, "look");
}

const Cases kCopyEngineCases = {
    {"bulk", bulk<Bulk::kRight>},
    {"bulk, no wait", bulk<Bulk::kNoWait>},
    {"bulk, too few bytes", bulk<Bulk::kTooFewBytes>},
    {"bulk, init unordered", bulk<Bulk::kInitUnordered>},
    {"bulk, shown by another", bulk<Bulk::kShownByAnother>},
    {"bulk, no fence", bulk<Bulk::kNoFence>},
    {"bulk, fence without barrier", bulk<Bulk::kFenceWithoutBarrier>},
    {"bulk, ends in flight", bulk<Bulk::kEndsInFlight>},
    {"pair", pair<Pair::kRight>},
    {"pair, the other awaited", pair<Pair::kOtherAwaited>},
    {"look", look<Look::kRight>},
    {"look, once", look<Look::kOnce>},
    {"look, wrong parity", look<Look::kWrongParity>},
    {"look, for ever", look<Look::kForEver>},
};

}  // namespace
}  // namespace lowbit::cuda
