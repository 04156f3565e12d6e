// Cases of the host model: registers that warpgroups give and take.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Budget {
  kRight,
  kNoShrink,
  kTakesTooMany,
  kOneWarpAlone,
  kNumbersDiffer,
  kNoSyncBetween,
  kGrowsToFewer,
  kShrinksToMore,
  kNoMultipleOfEight,
  kPartOfAWarpgroup
};

// 168 registers a thread at first: the first warpgroup gives in two steps, the others take.
template <Budget kCase>
LOWBIT_KERNEL(kCase == Budget::kPartOfAWarpgroup ? 416 : 384, 1)
budget_kernel(uint32_t* out) {
  const uint32_t t = thread_index();
  if (warp_index() >= 12) shrink_registers<40>();
  if (warp_index() / 4 == 0) {
    if (kCase == Budget::kGrowsToFewer) grow_registers<160>();
    if (kCase == Budget::kShrinksToMore) shrink_registers<176>();
    if (kCase == Budget::kNoMultipleOfEight) shrink_registers<60>();
    if (kCase == Budget::kOneWarpAlone && warp_index() != 2) return;
    if (kCase != Budget::kNoShrink) {
      shrink_registers<64>();
      if (kCase != Budget::kNoSyncBetween) sync_named_barrier(1, 128);
      shrink_registers<40>();
    }
  } else if (kCase == Budget::kNumbersDiffer && warp_index() == 5) {
    grow_registers<224>();
  } else {
    grow_registers<kCase == Budget::kTakesTooMany ? 240 : 232>();
  }
  out[block_index() * 384 + t] = t;
}

template <Budget kCase>
void budget() {
  Words out(768);
  launch("budget", budget_kernel<kCase>, {2, kCase == Budget::kPartOfAWarpgroup ? 416 : 384},
         nullptr, out.data());
  for (uint32_t i = 0; i < 768; ++i) expect(out[i] == i % 384, "budget");
}

const Cases kRegisterCases = {
    {"budget", budget<Budget::kRight>},
    {"budget, no shrink", budget<Budget::kNoShrink>},
    {"budget, takes too many", budget<Budget::kTakesTooMany>},
    {"budget, one warp alone", budget<Budget::kOneWarpAlone>},
    {"budget, numbers differ", budget<Budget::kNumbersDiffer>},
    {"budget, no sync between", budget<Budget::kNoSyncBetween>},
    {"budget, grows to fewer", budget<Budget::kGrowsToFewer>},
    {"budget, shrinks to more", budget<Budget::kShrinksToMore>},
    {"budget, no multiple of 8", budget<Budget::kNoMultipleOfEight>},
    {"budget, part of a warpgroup", budget<Budget::kPartOfAWarpgroup>},
};

}  // namespace
}  // namespace lowbit::cuda
