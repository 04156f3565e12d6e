// setmaxnreg on the model: warps give registers to their block's pool, or wait until it has what
// they ask for.
#pragma once

#include <algorithm>

#include "barriers.h"

namespace lowbit::cuda::model {

// What a block starts with. ptxas alone knows it; assumed is what it gives a kernel that says
// LOWBIT_KERNEL(threads, 1) with the threads of the launch, for without the 1 it ignores
// setmaxnreg: an even share of the 65536 of a multiprocessor, in eights. Of 256 a thread can use
// 255.
inline RegisterBudget start_registers(uint32_t block_size) {
  const uint32_t warps = (block_size + 31) / 32;
  const uint32_t share = std::min(65536 / (warps * 32) / 8 * 8, 256u);
  return {.all = share * warps * 32,
          .in_pool = 0,
          .warps = std::vector<RegisterBudget::Warp>(warps, {share, {}})};
}

inline void refuse_warp_without(const char* operation) {
  fail(std::string(operation) +
       " must be called by all four warps of a warpgroup, got one that ended without");
}

// The warp's next number of registers: the same as the others of its warpgroup come to. Between two
// they must wait for each other (PTX ISA, setmaxnreg).
inline void note_change(const Thread& thread, uint32_t registers, const char* operation) {
  Block& owner = *thread.block;
  RegisterBudget::Warp& own = owner.registers.warps[thread.warp];
  const size_t number = own.changes.size();
  own.changes.push_back(registers);
  const uint32_t first = thread.warp / 4 * 4;
  for (uint32_t warp = first; warp < first + 4; ++warp) {
    const std::vector<uint32_t>& changes = owner.registers.warps[warp].changes;
    if (changes.size() <= number && owner.threads[warp * 32].state == Thread::State::kFinished) {
      refuse_warp_without(operation);
    }
    require(changes.size() >= number,
            "warps of a warpgroup must wait for each other between two changes of registers");
    require(changes.size() == number || changes[number] == registers,
            "warps of a warpgroup must come to the same number of registers, got two numbers");
  }
}

// Called at a thread's end.
inline void check_changes(const Thread& thread) {
  const std::vector<RegisterBudget::Warp>& warps = thread.block->registers.warps;
  const uint32_t first = thread.warp / 4 * 4;
  for (uint32_t warp = first; warp < std::min<size_t>(first + 4, warps.size()); ++warp) {
    if (warps[warp].changes.size() > warps[thread.warp].changes.size()) {
      refuse_warp_without("a change of registers");
    }
  }
}

// Whether the warp has them, now if the pool can give them. Registers of warps that have ended do
// not come back to it.
inline bool take_registers(RegisterBudget& budget, uint32_t warp, uint32_t registers) {
  uint32_t& had = budget.warps[warp].registers;
  if (budget.in_pool + 32 * had < 32 * registers) return false;
  budget.in_pool += 32 * had - 32 * registers;
  had = registers;
  return true;
}

inline bool waits_for_registers(const RegisterBudget::Warp& warp) {
  return !warp.changes.empty() && warp.changes.back() != warp.registers;
}

inline void set_registers(uint32_t registers, const char* operation) {
  const Thread& thread = self();
  require(registers >= 24 && registers <= 256 && registers % 8 == 0,
          "registers of a thread must be a multiple of 8 from 24 to 256");
  require((thread.warp / 4 + 1) * 128 <= machine->block_size,
          "registers must be changed by whole warpgroups, got a last one of fewer than four warps");
  meet_warp(kWholeWarp, operation, nullptr,
            [&](void* const*) { note_change(thread, registers, operation); });
  RegisterBudget& budget = block().registers;
  wait_until(
      "the registers of " + std::string(operation) + " to " + std::to_string(registers),
      [&budget, warp = thread.warp, registers] { return take_registers(budget, warp, registers); });
}

inline void grow_registers(uint32_t registers) {
  const Unwatched unwatched;
  maybe_switch();
  const uint32_t had = block().registers.warps[self().warp].registers;
  if (registers < had) {
    fail("grow_registers: registers must be at least the " + std::to_string(had) +
         " that the warp has, got " + std::to_string(registers));
  }
  set_registers(registers, "grow_registers");
}

inline void shrink_registers(uint32_t registers) {
  const Unwatched unwatched;
  maybe_switch();
  const uint32_t had = block().registers.warps[self().warp].registers;
  if (registers > had) {
    fail("shrink_registers: registers must be at most the " + std::to_string(had) +
         " that the warp has, got " + std::to_string(registers));
  }
  set_registers(registers, "shrink_registers");
}

}  // namespace lowbit::cuda::model
