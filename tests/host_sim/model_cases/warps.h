// Cases of the host model: exchange between the lanes of a warp, and matrices that it loads.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

// ---- lanes ----

enum class Warp { kRight, kLanesDiverge, kOutsideTheMask, kNoSync, kSomeEnd };

template <Warp kCase>
LOWBIT_KERNEL(32)
warp_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  const uint32_t lane = lane_index();
  words[lane] = lane;
  if (kCase != Warp::kNoSync) sync_warp();
  const uint32_t next = words[(lane + 1) % 32];
  if (kCase == Warp::kSomeEnd && lane >= 20) return;
  if (kCase == Warp::kLanesDiverge && lane == 3) {
    out[lane] = ballot(true);
    return;
  }
  if (kCase == Warp::kOutsideTheMask && lane < 16) shuffle(lane, 20, 32, 0xffffu);
  out[lane] = reduce_add(next) + shuffle_down(lane, 1, 8);
}

template <Warp kCase>
void warp() {
  Words out(32);
  launch("warp", warp_kernel<kCase>, {1, 32}, nullptr, out.data());
  for (uint32_t l = 0; l < 32; ++l) expect(out[l] == 496 + (l % 8 == 7 ? l : l + 1), "warp");
}

// ---- a last warp of eight lanes ----

enum class PartWarp { kRight, kMissingLane, kWholeNeeded };

template <PartWarp kCase>
LOWBIT_KERNEL(40)
part_warp_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 64 * 4, 16);
  const uint32_t t = thread_index(), lane = lane_index();
  words[t] = t;
  sync_warp();
  const uint32_t opposite = words[t ^ 7];
  if (kCase == PartWarp::kMissingLane) shuffle(opposite, 20);
  uint32_t matrices[4];
  if (kCase == PartWarp::kWholeNeeded) load_matrix_x4(matrices, words + t * 4);
  const bool one = __builtin_popcount(ballot(elect_lane())) == 1;
  out[t] = reduce_add(1) * 100 + shuffle(opposite, lane ^ 1) + (one ? 0 : 7000);
}

template <PartWarp kCase>
void part_warp() {
  Words out(40);
  launch("part_warp", part_warp_kernel<kCase>, {1, 40}, nullptr, out.data());
  for (uint32_t t = 0; t < 40; ++t) expect(out[t] == (t < 32 ? 3200 : 800) + (t ^ 6), "part_warp");
}

// ---- an elected lane ----

enum class Election { kRight, kFirstLaneAssumed };

// What the elected lane writes all read; it is the same one the second time.
template <Election kCase>
LOWBIT_KERNEL(32)
election_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 2, 4);
  const uint32_t lane = lane_index();
  uint32_t own = 0;
  if (elect_lane()) words[0] = lane, own = lane + 1;
  if (elect_lane()) words[1] = own;
  sync_warp();
  if (kCase == Election::kFirstLaneAssumed) own = shuffle(own, 0);
  out[lane] = kCase == Election::kFirstLaneAssumed ? own - words[0] : words[1] - words[0];
}

template <Election kCase>
void election() {
  Words out(32);
  launch("election", election_kernel<kCase>, {1, 32}, nullptr, out.data());
  for (const uint32_t word : out) expect(word == 1, "election");
}

// ---- matrices ----

enum class Matrix { kRight, kLoadMisaligned, kStoreMisaligned };

// Four matrices of 8 rows, transposed by what is loaded and stored as it is.
template <Matrix kCase>
LOWBIT_KERNEL(32)
matrix_kernel(uint16_t* out) {
  LOWBIT_SHARED_ARRAY(uint16_t, in, 264, 16);
  LOWBIT_SHARED_ARRAY(uint16_t, transposed, 264, 16);
  const uint32_t lane = lane_index();
  for (uint32_t i = 0; i < 8; ++i) in[lane * 8 + i] = static_cast<uint16_t>(lane * 8 + i);
  sync_warp();
  uint32_t pairs[4];
  load_matrix_x4_transposed(pairs, in + lane * 8 + (kCase == Matrix::kLoadMisaligned ? 4 : 0));
  store_matrix_x4(transposed + lane * 8 + (kCase == Matrix::kStoreMisaligned ? 1 : 0), pairs);
  sync_warp();
  for (uint32_t i = 0; i < 8; ++i) out[lane * 8 + i] = transposed[lane * 8 + i];
}

template <Matrix kCase>
void matrix() {
  std::vector<uint16_t> out(256);
  launch("matrix", matrix_kernel<kCase>, {1, 32}, nullptr, out.data());
  for (uint32_t i = 0; i < 256; ++i) {
    expect(out[i] == i / 64 * 64 + i % 8 * 8 + i / 8 % 8, "matrix");
  }
}

const Cases kWarpCases = {
    {"warp", warp<Warp::kRight>},
    {"warp, lanes diverge", warp<Warp::kLanesDiverge>},
    {"warp, outside the mask", warp<Warp::kOutsideTheMask>},
    {"warp, no sync", warp<Warp::kNoSync>},
    {"warp, some end", warp<Warp::kSomeEnd>},
    {"part of a warp", part_warp<PartWarp::kRight>},
    {"part of a warp, missing lane", part_warp<PartWarp::kMissingLane>},
    {"part of a warp, whole needed", part_warp<PartWarp::kWholeNeeded>},
    {"election", election<Election::kRight>},
    {"election, first lane assumed", election<Election::kFirstLaneAssumed>},
    {"matrix", matrix<Matrix::kRight>},
    {"matrix, load misaligned", matrix<Matrix::kLoadMisaligned>},
    {"matrix, store misaligned", matrix<Matrix::kStoreMisaligned>},
};

}  // namespace
}  // namespace lowbit::cuda
