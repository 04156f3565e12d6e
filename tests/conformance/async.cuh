// mbarriers, bulk copies, clusters, register budgets.
#pragma once

#include "case.cuh"

namespace lowbit::cuda::conformance {

// Rounds between a warp that writes and one that reads, each waiting for the other.
LOWBIT_KERNEL(64) mbarrier_rounds(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 2, 8);
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  const uint32_t lane = lane_index();
  if (thread_index() == 0) {
    init_mbarrier(full, 32);
    init_mbarrier(full + 1, 32);
    fence_mbarrier_init();
  }
  sync_block();
  for (uint32_t round = 0; round < 5; ++round) {
    if (warp_index() == 0) {
      wait_mbarrier(full + 1, (round & 1) ^ 1);  // parity 1 of a new one: at once
      words[lane] = in[32 * round + lane];
      arrive_mbarrier(full);
    } else {
      wait_mbarrier(full, round & 1);
      out[32 * round + lane] = words[31 - lane];
      arrive_mbarrier(full + 1);
    }
  }
  sync_block();
  if (thread_index() != 0) return;
  out[160] = test_mbarrier(full, 0) + 2 * test_mbarrier(full, 1);
  invalidate_mbarrier(full);
  init_mbarrier(full, 1);
  out[161] = test_mbarrier(full, 0) + 2 * test_mbarrier(full, 1);
  arrive_mbarrier(full);
  out[162] = test_mbarrier(full, 0) + 2 * test_mbarrier(full, 1);
}

// Copies of several sizes to shared memory, then back in two groups.
LOWBIT_KERNEL(64) bulk_copies(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 1, 8);
  LOWBIT_SHARED_ARRAY(uint32_t, words, 1024, 16);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(full, 1);
    fence_mbarrier_init();
  }
  sync_block();
  if (t == 0) {
    arrive_mbarrier_expecting(full, 4096);
    bulk_copy_to_shared(words, in + 1020, 16, full);
    bulk_copy_to_shared(words + 4, in, 3072, full);
    bulk_copy_to_shared(words + 772, in + 768, 1008, full);
  }
  wait_mbarrier(full, 0);
  for (uint32_t i = t; i < 1024; i += 64) words[i] += i;
  fence_async_proxy();
  sync_block();
  if (t != 0) return;
  bulk_copy_to_global(out + 4, words, 2048);
  commit_bulk_stores();
  bulk_copy_to_global(out + 516, words + 512, 2032);
  bulk_copy_to_global(out, words + 1020, 16);
  commit_bulk_stores();
  wait_bulk_stores<1>();
  wait_bulk_stores<0>();
}

// ---- clusters of four ----

LOWBIT_KERNEL(64) cluster_ranks(const uint32_t*, uint32_t* out) {
  const uint32_t at = block_index() * 64 + thread_index();
  out[2 * at] = cluster_rank();
  out[2 * at + 1] = cluster_size();
}

// Each block reads its right neighbour, then writes to its left one.
LOWBIT_KERNEL(64) remote_words(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 128, 16);
  const uint32_t t = thread_index(), at = block_index() * 64 + t;
  const uint32_t right = (cluster_rank() + 1) % cluster_size();
  const uint32_t left = (cluster_rank() + cluster_size() - 1) % cluster_size();
  words[t] = in[at];
  sync_cluster();
  out[2 * at] = load_remote(map_shared_address(words + 63 - t, right));
  store_remote(map_shared_address(words + 64 + t, left), in[at] ^ t);
  sync_cluster();
  out[2 * at + 1] = words[64 + (t ^ 1)];
}

// Rank 0 waits for an arrival of each thread of the others, each after a remote store.
LOWBIT_KERNEL(64) remote_arrivals(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 1, 8);
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 16);
  const uint32_t t = thread_index(), rank = cluster_rank(), at = block_index() * 64 + t;
  if (t == 0) {
    init_mbarrier(full, 64 * (cluster_size() - 1));
    fence_mbarrier_init();
  }
  sync_cluster();
  if (rank != 0) {
    store_remote(map_shared_address(words + rank * 64 + t, 0), in[at]);
    arrive_remote_mbarrier(map_shared_address(full, 0));
  } else {
    wait_mbarrier(full, 0);
    for (uint32_t r = 1; r < cluster_size(); ++r) out[at + 64 * r] = words[r * 64 + (t ^ 3)];
  }
  sync_cluster();
}

// ---- registers ----

LOWBIT_KERNEL(384, 1) register_budgets(const uint32_t* in, uint32_t* out) {
  const uint32_t t = thread_index();
  if (warp_index() < 4) {
    shrink_registers<40>();
    out[t] = in[t] + 1;
  } else {
    grow_registers<232>();
    out[t] = in[t] + 2;
  }
}

inline void add_async_cases(Cases& cases) {
  using enum Needs;
  add_case(cases, "mbarrier", kSm90, {1, 64}, 160, 163, mbarrier_rounds);
  add_case(cases, "bulk_copy", kSm90, {1, 64}, 1024, 1024, bulk_copies);
  add_case(cases, "cluster_rank", kSm90, {8, 64, 0, 4}, 1, 1024, cluster_ranks);
  add_case(cases, "cluster_rank_alone", kSm90, {3, 64}, 1, 384, cluster_ranks);
  add_case(cases, "remote_words", kSm90, {8, 64, 0, 4}, 512, 1024, remote_words);
  add_case(cases, "remote_arrivals", kSm90, {8, 64, 0, 4}, 512, 512, remote_arrivals);
  add_case(cases, "register_budgets", kSm90a, {1, 384}, 384, 384, register_budgets);
}

}  // namespace lowbit::cuda::conformance
