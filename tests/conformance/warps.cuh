// Lanes of a warp, barriers of a block, cp.async.
#pragma once

#include "case.cuh"

namespace lowbit::cuda::conformance {

// ---- lanes ----

enum class Shuffle { kIndexed, kXor, kUp, kDown };

template <Shuffle kKind, typename T>
LOWBIT_DEVICE T shuffled(T value, uint32_t by, uint32_t width, uint32_t mask) {
  if constexpr (kKind == Shuffle::kIndexed) return shuffle(value, by, width, mask);
  if constexpr (kKind == Shuffle::kXor) return shuffle_xor(value, by, width, mask);
  if constexpr (kKind == Shuffle::kUp) return shuffle_up(value, by, width, mask);
  if constexpr (kKind == Shuffle::kDown) return shuffle_down(value, by, width, mask);
}

// Every width and distance; sources that lanes choose for themselves, also past the segment.
template <Shuffle kKind>
LOWBIT_KERNEL(32)
shuffles(const uint32_t* in, uint32_t* out) {
  const uint32_t lane = lane_index();
  for (uint32_t width = 1; width <= 32; width *= 2) {
    for (uint32_t by = 0; by < 32; ++by, out += 32) {
      out[lane] = shuffled<kKind>(in[lane], by, width, kAllLanes);
    }
    const uint32_t own = kKind == Shuffle::kIndexed ? in[32 + lane] % 64 : 5;
    out[lane] = shuffled<kKind>(in[lane], own, width, kAllLanes);
    out += 32;
  }
}

// Halves of the warp apart from each other, and wider types.
template <Shuffle kKind>
LOWBIT_KERNEL(32)
shuffles_of_halves(const uint32_t* in, uint32_t* out) {
  const uint32_t lane = lane_index();
  const uint64_t wide = static_cast<uint64_t>(in[lane]) << 32 | in[32 + lane];
  if (lane < 16) {
    out[lane] = shuffled<kKind>(in[lane], 3, 16, 0x0000ffffu);
  } else {
    out[lane] = shuffled<kKind>(in[lane], 6, 8, 0xffff0000u);
  }
  sync_warp();
  const auto moved = shuffled<kKind>(wide, 9, 32, kAllLanes);
  out[32 + lane] = static_cast<uint32_t>(moved >> 32);
  out[64 + lane] = static_cast<uint32_t>(moved);
  out[96 + lane] = float_to_bits(shuffled<kKind>(bits_to_float(in[lane]), 2, 4, kAllLanes));
  out[128 + lane] =
      static_cast<uint32_t>(shuffled<kKind>(static_cast<int32_t>(in[lane]), 1, 2, kAllLanes));
}

LOWBIT_KERNEL(32) votes(const uint32_t* in, uint32_t* out) {
  const uint32_t lane = lane_index();
  for (uint32_t bit = 0; bit < 32; ++bit, out += 128) {
    const bool condition = in[lane] >> bit & 1;
    out[lane] = ballot(condition);
    out[32 + lane] = any_lane(condition) | any_lane(lane > 40) << 1 | any_lane(lane == bit) << 2;
    out[64 + lane] = all_lanes(condition) | all_lanes(lane < 32) << 1 | all_lanes(lane != bit) << 2;
    out[96 + lane] = reduce_add(in[lane] + bit);
  }
  if (lane % 3 == 0) {
    constexpr uint32_t kThirds = 0x49249249u;
    out[lane] = ballot(in[lane] & 1, kThirds) + reduce_add(in[lane], kThirds);
    out[32 + lane] = any_lane(in[lane] & 2, kThirds) + 2 * all_lanes(lane % 3 == 0, kThirds);
  }
}

// Which lane is elected is the hardware's choice.
LOWBIT_KERNEL(32) elections(const uint32_t*, uint32_t* out) {
  const uint32_t elected = ballot(elect_lane());
  out[lane_index()] = elected != 0 && (elected & (elected - 1)) == 0;
}

LOWBIT_KERNEL(64) warp_messages(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 64, 4);
  const uint32_t t = thread_index();
  words[t] = in[t];
  sync_warp();
  out[t] = words[t ^ 31];
  sync_warp();
  if (lane_index() >= 8) return;
  words[t] = in[t] + 1;
  sync_warp(0x000000ffu);
  out[t] += words[t ^ 7];
}

// ---- barriers ----

LOWBIT_KERNEL(1024) block_messages(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 1024, 4);
  const uint32_t t = thread_index(), last = block_size() - 1;
  for (uint32_t turn = 0; turn < 3; ++turn) {
    words[t] = in[t] + turn;
    sync_block();
    out[t] = turn == 0 ? words[last - t] : out[t] * 5 + words[last - t];
    sync_block();
  }
}

// Two warps write and go on, two wait; each pair of warps has a barrier of its own.
LOWBIT_KERNEL(128) named_barriers(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 128, 4);
  const uint32_t t = thread_index();
  if (warp_index() < 2) {
    words[t] = in[t];
    arrive_named_barrier(1, 128);
    words[64 + t] = in[64 + t];
    sync_named_barrier(15, 64);
    out[t] = words[64 + (t ^ 63)];
  } else {
    sync_named_barrier(1, 128);
    out[t] = words[t ^ 127];
  }
}

// ---- cp.async ----

// The first bytes of every size, the rest zeros.
LOWBIT_KERNEL(32) copies_of_parts(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32 * 8, 16);
  const uint32_t t = thread_index();
  copy_async_16(words + 4 * t, in + 4 * t, t < 17 ? t : 16);
  copy_async<8>(words + 128 + 2 * t, in + 128 + 2 * t, t % 9);
  copy_async<4>(words + 192 + t, in + 192 + t, t % 5);
  copy_async<4>(words + 224 + t, in + 224 + (31 - t));
  commit_async_copies();
  wait_async_copies<0>();
  sync_block();
  for (uint32_t i = 0; i < 8; ++i) out[32 * i + t] = words[32 * i + t];
}

// A ring of three stages, as a pipeline has it.
LOWBIT_KERNEL(64) copy_pipeline(const uint32_t* in, uint32_t* out) {
  constexpr uint32_t kStages = 3, kSteps = 7;
  LOWBIT_SHARED_ARRAY(uint32_t, ring, kStages * 256, 16);
  const uint32_t t = thread_index();
  const auto fetch = [&](uint32_t step) {
    if (step < kSteps) {
      copy_async_16(ring + step % kStages * 256 + 4 * t, in + step * 256 + 4 * t);
    }
    commit_async_copies();
  };
  fetch(0);
  fetch(1);
  for (uint32_t step = 0; step < kSteps; ++step) {
    wait_async_copies<1>();
    sync_block();
    fetch(step + 2);
    for (uint32_t i = 0; i < 4; ++i) {
      out[step * 256 + 64 * i + t] = ring[step % kStages * 256 + 255 - 64 * i - t];
    }
  }
  wait_async_copies<0>();
}

template <Shuffle kKind>
void add_shuffle_cases(Cases& cases, const std::string& name) {
  add_case(cases, name, Needs::kSm80, {1, 32}, 64, 6 * 33 * 32, shuffles<kKind>);
  add_case(cases, name + "_halves", Needs::kSm80, {1, 32}, 64, 160, shuffles_of_halves<kKind>);
}

inline void add_warp_cases(Cases& cases) {
  using enum Needs;
  add_shuffle_cases<Shuffle::kIndexed>(cases, "shuffle");
  add_shuffle_cases<Shuffle::kXor>(cases, "shuffle_xor");
  add_shuffle_cases<Shuffle::kUp>(cases, "shuffle_up");
  add_shuffle_cases<Shuffle::kDown>(cases, "shuffle_down");
  add_case(cases, "votes", kSm80, {1, 32}, 32, 33 * 128, votes);
  add_case(cases, "elect_lane", kSm90, {1, 32}, 1, 32, elections);
  add_case(cases, "sync_warp", kSm80, {1, 64}, 64, 64, warp_messages);
  for (const int threads : {32, 40, 96, 1000, 1024}) {
    add_case(cases, "sync_block_" + std::to_string(threads), kSm80, {1, threads}, 1024, 1024,
             block_messages);
  }
  add_case(cases, "named_barriers", kSm80, {1, 128}, 128, 128, named_barriers);
  add_case(cases, "copy_async_parts", kSm80, {1, 32}, 256, 256, copies_of_parts);
  add_case(cases, "copy_async_pipeline", kSm80, {1, 64}, 1792, 1792, copy_pipeline);
}

}  // namespace lowbit::cuda::conformance
