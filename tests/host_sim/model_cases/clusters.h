// Cases of the host model: shared memory of other blocks of a cluster.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Remote { kRight, kNoSync, kNoLastSync };

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

const Cases kClusterCases = {
    {"remote", remote<Remote::kRight>},
    {"remote, no sync", remote<Remote::kNoSync>},
    {"remote, no last sync", remote<Remote::kNoLastSync>},
};

}  // namespace
}  // namespace lowbit::cuda
