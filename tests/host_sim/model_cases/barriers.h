// Cases of the host model: barriers of a block.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Barrier { kRight, kMissing, kCountsDiffer, kOneWarpAway, kHalfWarps };

template <Barrier kCase>
LOWBIT_KERNEL(kThreads)
reverse_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, kThreads, 4);
  const uint32_t t = thread_index();
  words[t] = in[t];
  if (kCase == Barrier::kOneWarpAway && t < 32) return;
  if (kCase == Barrier::kOneWarpAway) sync_named_barrier(1, kThreads);
  if (kCase == Barrier::kHalfWarps && t % 32 < 16) sync_named_barrier(1, 32);
  if (kCase == Barrier::kCountsDiffer) sync_named_barrier(1, t < 32 ? 64 : 32);
  if (kCase != Barrier::kMissing) sync_block();
  out[t] = words[kThreads - 1 - t];
}

template <Barrier kCase>
void reverse() {
  const Words in = counted(kThreads);
  Words out(kThreads);
  launch("reverse", reverse_kernel<kCase>, {1, kThreads}, nullptr, out.data(), in.data());
  for (uint32_t t = 0; t < kThreads; ++t) expect(out[t] == kThreads - 1 - t, "reverse");
}

// One warp hands words to the other, which says when it has read them.
enum class Handoff { kRight, kNobodyReads };

template <Handoff kCase>
LOWBIT_KERNEL(kThreads)
hand_off_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  for (uint32_t round = 0; round < 3; ++round) {
    if (warp_index() == 0) {
      if (round > 0) sync_named_barrier(2, kThreads);
      words[lane_index()] = round * 100 + lane_index();
      arrive_named_barrier(1, kThreads);
    } else {
      sync_named_barrier(1, kThreads);
      out[round * 32 + lane_index()] = words[lane_index()];
      if (round < 2 && kCase == Handoff::kRight) arrive_named_barrier(2, kThreads);
    }
  }
}

template <Handoff kCase>
void hand_off() {
  Words out(96);
  launch("hand_off", hand_off_kernel<kCase>, {1, kThreads}, nullptr, out.data());
  for (uint32_t i = 0; i < 96; ++i) expect(out[i] == i / 32 * 100 + i % 32, "hand_off");
}

// Threads that have nothing to do end before the barrier, which does not wait for them.
LOWBIT_KERNEL(40) some_end_kernel(uint32_t* out, uint32_t count) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 40, 4);
  const uint32_t t = thread_index();
  if (t >= count) return;
  words[t] = t;
  sync_block();
  out[t] = words[count - 1 - t];
}

void some_end() {
  for (const uint32_t count : {20u, 36u, 40u}) {
    Words out(count);
    launch("some_end", some_end_kernel, {1, 40}, nullptr, out.data(), count);
    for (uint32_t t = 0; t < count; ++t) expect(out[t] == count - 1 - t, "some_end");
  }
}

// Each block of several waits for a warp of its own.
LOWBIT_KERNEL(kThreads) away_kernel() {
  if (warp_index() != block_index()) sync_named_barrier(1, kThreads);
}

void one_away_in_each_block() {
  model::settings.resident_blocks = 2;
  launch("away", away_kernel, {2, kThreads}, nullptr);
}

// One warp writes behind the first phase; to read before the second is too early, also for a thread
// that goes on so late that the writer has come to the second.
enum class Phase { kRight, kTooEarly };

template <Phase kCase>
LOWBIT_KERNEL(kThreads)
phases_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, word, 1, 4);
  const uint32_t t = thread_index();
  sync_block();
  if (t == 0) *word = 7;
  if (kCase != Phase::kTooEarly) sync_block();
  if (t == 32) *out = *word;
  if (kCase == Phase::kTooEarly) sync_block();
}

template <Phase kCase>
void phases() {
  uint32_t out = 0;
  launch("phases", phases_kernel<kCase>, {1, kThreads}, nullptr, &out);
  expect(out == 7, "phases");
}

const Cases kBarrierCases = {
    {"reverse", reverse<Barrier::kRight>},
    {"reverse, barrier missing", reverse<Barrier::kMissing>},
    {"reverse, counts differ", reverse<Barrier::kCountsDiffer>},
    {"reverse, one warp away", reverse<Barrier::kOneWarpAway>},
    {"reverse, half warps", reverse<Barrier::kHalfWarps>},
    {"some end", some_end},
    {"away, one warp in each block", one_away_in_each_block},
    {"hand_off", hand_off<Handoff::kRight>},
    {"hand_off, nobody reads", hand_off<Handoff::kNobodyReads>},
    {"phases", phases<Phase::kRight>},
    {"phases, read too early", phases<Phase::kTooEarly>},
};

}  // namespace
}  // namespace lowbit::cuda
