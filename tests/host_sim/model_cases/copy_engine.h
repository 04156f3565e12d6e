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
  if (t == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
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

const Cases kCopyEngineCases = {
    {"bulk", bulk<Bulk::kRight>},
    {"bulk, no wait", bulk<Bulk::kNoWait>},
    {"bulk, too few bytes", bulk<Bulk::kTooFewBytes>},
    {"bulk, init unordered", bulk<Bulk::kInitUnordered>},
    {"bulk, no fence", bulk<Bulk::kNoFence>},
    {"bulk, fence without barrier", bulk<Bulk::kFenceWithoutBarrier>},
    {"bulk, ends in flight", bulk<Bulk::kEndsInFlight>},
};

}  // namespace
}  // namespace lowbit::cuda
