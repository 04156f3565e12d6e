// Cases of the host model: what is ordered with asynchronous operations. Each mistake here shows in
// every schedule.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Order { kRight, kNoFence, kNoBarrier, kNoWait, kTooEarly };

// ---- copies out ----

// Out go words that the threads wrote and words that came by a copy issued behind those writes.
template <Order kCase>
LOWBIT_KERNEL(kThreads)
relay_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, written, kThreads, 128);
  LOWBIT_SHARED_ARRAY(uint32_t, brought, kThreads, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
  written[t] = t;
  if (kCase != Order::kNoFence) fence_async_proxy();
  sync_block();
  if (t == 0) {
    arrive_mbarrier_expecting(come, kThreads * 4);
    bulk_copy_to_shared(brought, in, kThreads * 4, come);
    wait_mbarrier(come, 0);
  } else if (t == 32) {
    if (kCase != Order::kNoWait) wait_mbarrier(come, 0);
    bulk_copy_to_global(out, written, kThreads * 4);
    bulk_copy_to_global(out + kThreads, brought, kThreads * 4);
    commit_bulk_stores();
    wait_bulk_stores<0>();
  }
}

template <Order kCase>
void relay() {
  alignas(16) uint32_t in[kThreads], out[2 * kThreads];
  for (uint32_t i = 0; i < kThreads; ++i) in[i] = kThreads + i;
  launch("relay", relay_kernel<kCase>, {1, kThreads}, nullptr, +out,
         static_cast<const uint32_t*>(in));
  for (uint32_t i = 0; i < 2 * kThreads; ++i) expect(out[i] == i, "relay");
}

// Every lane of a warp writes a word, one lane copies them out: the fence of a lane is for what
// this lane wrote or what was ordered before it.
template <Order kCase>
LOWBIT_KERNEL(32)
lanes_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, written, 32, 128);
  const uint32_t t = thread_index();
  written[t] = t;
  if (kCase != Order::kNoFence || t == 0) fence_async_proxy();
  if (kCase != Order::kNoBarrier) sync_warp();
  if (t > 0) return;
  bulk_copy_to_global(out, written, 128);
  commit_bulk_stores();
  wait_bulk_stores<0>();
}

template <Order kCase>
void lanes() {
  alignas(16) uint32_t out[32];
  launch("lanes", lanes_kernel<kCase>, {1, 32}, nullptr, +out);
  for (uint32_t i = 0; i < 32; ++i) expect(out[i] == i, "lanes");
}

// Threads write words that a copy overwrites, and read them before they let another come.
template <Order kCase>
LOWBIT_KERNEL(kThreads)
overwrite_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, kThreads, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
  words[t] = 0;
  if (kCase != Order::kNoFence) fence_async_proxy();
  for (uint32_t round = 0; round < 2; ++round) {
    if (round == 0 || kCase != Order::kNoBarrier) sync_block();
    if (t == 0) {
      arrive_mbarrier_expecting(come, kThreads * 4);
      bulk_copy_to_shared(words, in + round * kThreads, kThreads * 4, come);
    }
    wait_mbarrier(come, round);
    out[round * kThreads + t] = words[t];
  }
}

template <Order kCase>
void overwrite() {
  alignas(16) uint32_t in[2 * kThreads];
  uint32_t out[2 * kThreads];
  for (uint32_t i = 0; i < 2 * kThreads; ++i) in[i] = i;
  launch("overwrite", overwrite_kernel<kCase>, {1, kThreads}, nullptr, +out,
         static_cast<const uint32_t*>(in));
  for (uint32_t i = 0; i < 2 * kThreads; ++i) expect(out[i] == i, "overwrite");
}

// ---- products ----

constexpr uint32_t kGroup = 128;   // threads of a warpgroup
constexpr uint32_t kHalf = 8 * 8;  // elements of b with the same eight K: without swizzle, in a row

// d[64, 8] = ones b; every element of the sums that belong to column n is 16 b[n].
// The caller waits, so `ones` are its own.
LOWBIT_DEVICE void multiply_by_ones(float (&d)[4], const uint32_t (&ones)[4], const uint16_t* b,
                                    bool adds) {
  fence_wgmma();
  wgmma_float16<8>(d, ones, matrix_descriptor(b, 128, 128, Swizzle::kNone), adds);
  commit_wgmma();
}

void expect_sums(const std::vector<float>& out, float factor, const char* what) {
  for (uint32_t i = 0; i < 4 * kGroup; ++i) {
    const uint32_t column = i / 4 % 4 * 2 + i % 2;
    expect(out[i] == factor * static_cast<float>(column + 1), what);
  }
}

// Half of b is written by threads, by those of another warpgroup where there are two; the other
// half comes by a copy issued behind those writes.
template <Order kCase, uint32_t kGroups>
LOWBIT_KERNEL(kGroups* kGroup)
halves_kernel(float* out, const uint16_t* in) {
  LOWBIT_SHARED_ARRAY(uint16_t, b, 2 * kHalf, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
  sync_block();
  const uint32_t first = (kGroups - 1) * kGroup;
  if (t >= first && t < first + kHalf) b[t - first] = in[t - first];
  if (kCase != Order::kNoFence) fence_async_proxy();
  if (kCase != Order::kNoBarrier) sync_block();
  if (t >= kGroup) return;
  if (t == 0) {
    arrive_mbarrier_expecting(come, kHalf * 2);
    bulk_copy_to_shared(b + kHalf, in, kHalf * 2, come);
  }
  if (kCase != Order::kNoWait || t == 0) wait_mbarrier(come, 0);
  const uint32_t one = floats_to_float16x2(1, 1), ones[4] = {one, one, one, one};
  float d[4] = {};
  multiply_by_ones(d, ones, b, false);
  wait_wgmma<0>();
  for (uint32_t i = 0; i < 4; ++i) out[t * 4 + i] = d[i];
}

// Eight rows of eight K; row n holds n + 1.
std::unique_ptr<uint16_t[], void (*)(void*)> half_of_b() {
  std::unique_ptr<uint16_t[], void (*)(void*)> b(
      static_cast<uint16_t*>(std::aligned_alloc(16, kHalf * 2)), std::free);
  for (uint32_t i = 0; i < kHalf; ++i) b[i] = float_to_float16(static_cast<float>(i / 8 + 1));
  return b;
}

template <Order kCase, uint32_t kGroups>
void halves() {
  const auto in = half_of_b();
  std::vector<float> out(4 * kGroup);
  launch("halves", halves_kernel<kCase, kGroups>, {1, kGroups * kGroup}, nullptr, out.data(),
         static_cast<const uint16_t*>(in.get()));
  expect_sums(out, 16, "halves");
}

// A ring of two stages: one warp fills them by copies, a warpgroup multiplies, each of its warps
// gives them back. Nobody writes to the stages, so there is no fence.
template <Order kCase>
LOWBIT_KERNEL(kGroup + 32)
ring_kernel(float* out, const uint16_t* in) {
  constexpr uint32_t kStages = 2, kRounds = 5;
  LOWBIT_SHARED_ARRAY(uint16_t, b, kStages * 2 * kHalf, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, full, kStages, 8);
  LOWBIT_SHARED_ARRAY(Mbarrier, empty, kStages, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      init_mbarrier(full + stage, 1);
      init_mbarrier(empty + stage, 4);
    }
    fence_mbarrier_init();
  }
  sync_block();
  const uint32_t one = floats_to_float16x2(1, 1), ones[4] = {one, one, one, one};
  float d[4] = {};
  for (uint32_t step = 0; step < kStages * kRounds; ++step) {
    const uint32_t stage = step % kStages, parity = step / kStages % 2;
    uint16_t* operand = b + stage * 2 * kHalf;
    if (t == kGroup) {
      wait_mbarrier(empty + stage, parity ^ 1);
      arrive_mbarrier_expecting(full + stage, 4 * kHalf);
      bulk_copy_to_shared(operand, in, 2 * kHalf, full + stage);
      bulk_copy_to_shared(operand + kHalf, in, 2 * kHalf, full + stage);
    } else if (t < kGroup) {
      wait_mbarrier(full + stage, parity);
      multiply_by_ones(d, ones, operand, step > 0);
      if (kCase != Order::kTooEarly) wait_wgmma<0>();
      if (lane_index() == 0) arrive_mbarrier(empty + stage);
    }
  }
  if (t >= kGroup) return;
  wait_wgmma<0>();
  for (uint32_t i = 0; i < 4; ++i) out[t * 4 + i] = d[i];
}

template <Order kCase>
void ring() {
  const auto in = half_of_b();
  std::vector<float> out(4 * kGroup);
  launch("ring", ring_kernel<kCase>, {1, kGroup + 32}, nullptr, out.data(),
         static_cast<const uint16_t*>(in.get()));
  expect_sums(out, 160, "ring");
}

const Cases kAsyncOrderCases = {
    {"relay", relay<Order::kRight>},
    {"relay, no fence", relay<Order::kNoFence>},
    {"relay, no wait", relay<Order::kNoWait>},
    {"lanes", lanes<Order::kRight>},
    {"lanes, no fence", lanes<Order::kNoFence>},
    {"lanes, no barrier", lanes<Order::kNoBarrier>},
    {"overwrite", overwrite<Order::kRight>},
    {"overwrite, no fence", overwrite<Order::kNoFence>},
    {"overwrite, no barrier", overwrite<Order::kNoBarrier>},
    {"halves", halves<Order::kRight, 1>},
    {"halves, no fence", halves<Order::kNoFence, 1>},
    {"halves, no barrier", halves<Order::kNoBarrier, 1>},
    {"halves, no wait", halves<Order::kNoWait, 1>},
    {"hand_over", halves<Order::kRight, 2>},
    {"hand_over, no fence", halves<Order::kNoFence, 2>},
    {"hand_over, no barrier", halves<Order::kNoBarrier, 2>},
    {"ring", ring<Order::kRight>},
    {"ring, given back too early", ring<Order::kTooEarly>},
};

}  // namespace
}  // namespace lowbit::cuda
