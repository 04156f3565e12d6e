// Cases of the host model: global memory between blocks.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Last { kRight, kNotReset, kRelaxed, kNoBarrier };

// Every block adds its words; the last one to end adds the sums of all, in their order.
template <Last kCase>
LOWBIT_KERNEL(kThreads)
sum_kernel(uint32_t* total, uint32_t* sums, uint32_t* ended, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, order, 1, 4);
  const uint32_t t = thread_index(), b = block_index();
  const uint32_t sum = reduce_add(load_constant(in + b * kThreads + t));
  if (lane_index() == 0) sums[b * 2 + warp_index()] = sum;
  if (kCase != Last::kNoBarrier) sync_block();
  if (t == 0)
    *order = kCase == Last::kRelaxed ? atomic_add(ended, 1) : add_acquire_release(ended, 1);
  sync_block();
  if (*order % grid_size() != grid_size() - 1 || (kCase == Last::kNotReset && *order != 6)) return;
  if (t != 0) return;
  uint32_t all = 0;
  for (uint32_t i = 0; i < grid_size() * 2; ++i) all += sums[i];
  *total = all;
  if (kCase != Last::kNotReset) *ended = 0;
}

template <Last kCase>
void sum() {
  const Words in = counted(7 * kThreads);
  Words sums(14), ended(1);
  for (int launches = 0; launches < 2; ++launches) {
    uint32_t total = 0;
    launch("sum", sum_kernel<kCase>, {7, kThreads}, nullptr, &total, sums.data(), ended.data(),
           in.data());
    expect(total == 7 * kThreads * (7 * kThreads - 1) / 2, "sum");
  }
}

// Blocks in a chain: each waits for the one before or, wrongly, for the one behind.
enum class Chain { kRight, kBackwards };

template <Chain kCase>
LOWBIT_KERNEL(1)
chain_kernel(uint32_t* tickets, uint32_t* flags, uint32_t* out) {
  // The order in which blocks start is their order in the chain.
  const uint32_t place = atomic_add(tickets, 1);
  if (kCase == Chain::kRight && place > 0) wait_at_least(flags + place - 1, 1);
  if (kCase == Chain::kBackwards && place + 1 < grid_size()) wait_at_least(flags + place + 1, 1);
  out[place] = place == 0 ? 1 : out[place - 1] + place;
  store_release(flags + place, 1);
}

template <Chain kCase>
void chain() {
  Words tickets(1), flags(9), out(9);
  launch("chain", chain_kernel<kCase>, {9, 1}, nullptr, tickets.data(), flags.data(), out.data());
  expect(out[8] == 37, "chain");
}

LOWBIT_KERNEL(32) written_constant_kernel(uint32_t* words) {
  words[lane_index()] = 1;
  sync_warp();
  if (load_constant(words + (lane_index() + 1) % 32) != 1) words[0] = 7;
}

void written_constant() {
  Words words(32);
  launch("written_constant", written_constant_kernel, {1, 32}, nullptr, words.data());
  expect(words[0] == 1, "written_constant");
}

const Cases kGlobalMemoryCases = {
    {"sum", sum<Last::kRight>},
    {"sum, not reset", sum<Last::kNotReset>},
    {"sum, relaxed", sum<Last::kRelaxed>},
    {"sum, no barrier", sum<Last::kNoBarrier>},
    {"chain", chain<Chain::kRight>},
    {"chain, backwards", chain<Chain::kBackwards>},
    {"written constant", written_constant},
};

}  // namespace
}  // namespace lowbit::cuda
