// Cases of the host model: shared memory and mbarriers of other blocks of a cluster.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Remote { kRight, kSomeEnd, kNoSync, kNoLastSync };

// Every block reads the words of the next one of its cluster.
template <Remote kCase>
LOWBIT_KERNEL(32)
remote_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  const uint32_t lane = lane_index(), rank = cluster_rank();
  words[lane] = block_index() * 32 + lane;
  if (kCase != Remote::kNoSync) sync_cluster();
  out[block_index() * 32 + lane] =
      load_remote(map_shared_address(words + lane, (rank + 1) % cluster_size()));
  if (kCase == Remote::kSomeEnd && lane % 4 == 1) return;  // not waited for
  if (kCase != Remote::kNoLastSync) sync_cluster();
}

template <Remote kCase>
void remote() {
  Words out(8 * 32);
  launch("remote", remote_kernel<kCase>, {8, 32, 0, 4}, nullptr, out.data());
  for (uint32_t i = 0; i < out.size(); ++i) {
    const uint32_t b = i / 32, next = b / 4 * 4 + (b + 1) % 4;
    expect(out[i] == next * 32 + i % 32, "remote");
  }
}

// ---- mbarriers ----

enum class Arrival { kRight, kOneMore, kOneTooFew, kNotShown };

// Lanes of the second block write words of the first, each with an arrival there.
template <Arrival kCase>
LOWBIT_KERNEL(32)
arrival_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  LOWBIT_SHARED_ARRAY(Mbarrier, written, 1, 8);
  const uint32_t lane = lane_index();
  if (lane == 0) {
    init_mbarrier(written, 32);
    fence_mbarrier_init();
  }
  if (kCase != Arrival::kNotShown) sync_cluster();
  if (cluster_rank() == 1) {
    store_remote(map_shared_address(words + lane, 0), lane);
    const uint32_t barrier = map_shared_address(written, 0);
    if (kCase != Arrival::kOneTooFew || lane != 4) arrive_remote_mbarrier(barrier);
    if (kCase == Arrival::kOneMore && lane == 4) arrive_remote_mbarrier(barrier);
  } else {
    wait_mbarrier(written, 0);
    out[lane] = words[31 - lane];
  }
  sync_cluster();
}

template <Arrival kCase>
void arrival() {
  Words out(32);
  launch("arrival", arrival_kernel<kCase>, {2, 32, 0, 2}, nullptr, out.data());
  for (uint32_t lane = 0; lane < 32; ++lane) expect(out[lane] == 31 - lane, "arrival");
}

const Cases kClusterCases = {
    {"remote until some end", remote<Remote::kSomeEnd>},
    {"remote", remote<Remote::kRight>},
    {"remote, no sync", remote<Remote::kNoSync>},
    {"remote, no last sync", remote<Remote::kNoLastSync>},
    {"arrival", arrival<Arrival::kRight>},
    {"arrival, one more", arrival<Arrival::kOneMore>},
    {"arrival, one too few", arrival<Arrival::kOneTooFew>},
    {"arrival, not shown", arrival<Arrival::kNotShown>},
};

}  // namespace
}  // namespace lowbit::cuda
