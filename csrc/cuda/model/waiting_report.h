// What the report of a deadlock on the model says about a block.
#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "mbarrier.h"
#include "register_budget.h"

namespace lowbit::cuda::model {

// Threads by what they wait for.
inline void append_waiting(std::string& text, const Block& block) {
  std::map<std::string, std::pair<uint32_t, const Thread*>> waiting;
  for (const Thread& thread : block.threads) {
    if (thread.state == Thread::State::kFinished) continue;
    const bool can_run = thread.state == Thread::State::kRunnable;
    auto& [count, first] = waiting[can_run ? "its turn" : thread.waits_for];
    if (count++ == 0) first = &thread;
  }
  for (const auto& [what, threads] : waiting) {
    if (!text.empty()) text += ", ";
    text += std::to_string(threads.first) + " threads wait for " + what + " (" +
            place_of(*threads.second) + ")";
  }
}

// What has not come: to mbarriers in the middle of a phase, and to the pool that warps wait for.
inline void append_lacking(std::string& text, const Block& block) {
  for (const auto& [address, barrier] : block.mbarriers) {
    if (barrier.pending == barrier.expected && barrier.bytes == 0) continue;
    text += "; " + describe_mbarrier(block, address) + " in phase of parity " +
            std::to_string(barrier.parity) + " lacks " + std::to_string(barrier.pending) +
            " arrivals and " + std::to_string(barrier.bytes) + " bytes";
  }
  const auto& [all, in_pool, warps] = block.registers;
  if (std::none_of(warps.begin(), warps.end(), waits_for_registers)) return;
  text += "; the pool of " + place_of(block) + " has " + std::to_string(in_pool) + " of its " +
          std::to_string(all) + " registers, which shrink_registers must give";
}

}  // namespace lowbit::cuda::model
