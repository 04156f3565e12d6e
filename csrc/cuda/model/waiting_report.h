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

// Of warps that wait for lanes which never come.
inline void append_ended_lanes(std::string& text, const Block& block) {
  for (uint32_t warp = 0; warp < block.meetings.size(); ++warp) {
    for (const WarpMeeting& meeting : block.meetings[warp]) {
      uint32_t ended = 0;
      for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(meeting.mask >> lane & 1)) continue;
        ended += block.threads[warp * 32 + lane].state == Thread::State::kFinished;
      }
      if (ended == 0) continue;
      text += "; " + std::to_string(ended) + " lanes that " + meeting.operation + " of warp " +
              std::to_string(warp) + " of " + place_of(block) + " names have ended";
    }
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
  append_ended_lanes(text, block);
  const auto& [all, in_pool, warps] = block.registers;
  if (std::none_of(warps.begin(), warps.end(), waits_for_registers)) return;
  text += "; the pool of " + place_of(block) + " has " + std::to_string(in_pool) + " of its " +
          std::to_string(all) + " registers, which shrink_registers must give";
}

}  // namespace lowbit::cuda::model
