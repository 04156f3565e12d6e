// Barriers of a block, meetings of a warp and of a cluster on the model.
#pragma once

#include <cstring>

#include "shared_memory.h"

namespace lowbit::cuda::model {

inline constexpr uint32_t kWholeWarp = 0xffffffffu;

// Barriers count warps: the last thread of the block stands for the lanes that its warp lacks too.
inline uint32_t arrivals_of(const Thread& thread) {
  const uint32_t size = machine->block_size;
  return thread.index + 1 == size ? 1 + (32 - size % 32) % 32 : 1;
}

// The hardware counts a warp when one of its lanes comes, and all of them must.
inline void check_whole_warps(NamedBarrier& barrier) {
  for (uint32_t warp = 0; warp * 32 < machine->block_size; ++warp) {
    const uint32_t count = machine->block_size - warp * 32;
    const uint32_t all = count >= 32 ? 0xffffffffu : (1u << count) - 1;
    require(barrier.lanes[warp] == 0 || barrier.lanes[warp] == all,
            "a barrier must be reached by whole warps, got lanes of one without the others");
    barrier.lanes[warp] = 0;
  }
}

// In place of a number: the threads of the block that have not ended.
inline constexpr uint32_t kAllLiving = ~0u;

inline uint32_t awaited_arrivals(const Block& owner, const NamedBarrier& barrier) {
  if (barrier.expected != kAllLiving) return barrier.expected;
  const Thread& last = owner.threads.back();
  const bool lacking_too = last.state == Thread::State::kFinished;
  return (machine->block_size + 31) / 32 * 32 - owner.finished -
         (lacking_too ? arrivals_of(last) - 1 : 0);
}

inline void complete_barrier_if_due(const Block& owner, NamedBarrier& barrier) {
  if (barrier.arrived == 0 || barrier.arrived != awaited_arrivals(owner, barrier)) return;
  if (barrier.expected != kAllLiving) check_whole_warps(barrier);
  for (Thread* thread : barrier.waiting) make_runnable(*thread);
  barrier.waiting.clear();
  barrier.arrived = 0;
  ++barrier.phases.completed;
}

inline void come_to_barrier(uint32_t id, uint32_t threads, bool wait, const char* operation) {
  NamedBarrier& barrier = block().barriers[id];
  require(barrier.arrived == 0 || barrier.expected == threads,
          "threads of a barrier must agree on their number, got two numbers");
  Key& key = barrier.phases.current();
  release(key);
  barrier.expected = threads;
  ++machine->progress;
  barrier.arrived += arrivals_of(self());
  if (threads != kAllLiving) barrier.lanes[self().warp] |= 1u << self().lane;
  require(barrier.arrived <= threads, "threads of a barrier must be no more than it names");
  complete_barrier_if_due(block(), barrier);
  if (!wait) return;
  if (barrier.arrived != 0) {
    barrier.waiting.push_back(&self());
    suspend(std::string(operation) + " " + std::to_string(id));
  }
  acquire(key);
}

// bar.sync and bar.arrive: `threads` of the block take part, those that wait and those that do not.
inline void barrier_arrive(uint32_t id, uint32_t threads, bool wait, const char* operation) {
  const Unwatched unwatched;
  maybe_switch();
  require(id < 16, "a barrier's number must be 0 to 15, got more");
  require(threads > 0 && threads % 32 == 0 && threads <= 1024,
          "threads of a barrier must be a multiple of 32 up to 1024");
  come_to_barrier(id, threads, wait, operation);
}

// Of all threads that have not ended (CUDA C++ Programming Guide, __syncthreads()).
inline void sync_block() {
  const Unwatched unwatched;
  maybe_switch();
  come_to_barrier(0, kAllLiving, true, "sync_block");
}

// Lanes of the thread's warp: fewer than 32 of the last one where threads are no multiple of 32.
inline uint32_t lanes_of_warp() {
  const uint32_t count = machine->block_size - self().warp * 32;
  return count >= 32 ? kWholeWarp : (1u << count) - 1;
}

inline void require_whole_warp(const char* operation) {
  if (lanes_of_warp() != kWholeWarp) {
    fail(std::string(operation) + " must be called by whole warps, got the last one with fewer");
  }
}

// Lanes of a warp come together; the last to come runs `act` on the arguments of all, those of
// lanes outside `mask` null. Lanes that the warp lacks are not waited for. Orders no memory
// accesses.
template <typename Act>
void meet_warp(uint32_t mask, const char* operation, void* argument, const Act& act) {
  Thread& thread = self();
  mask &= lanes_of_warp();
  require(mask >> thread.lane & 1, "the mask of a warp's operation must name the calling lane");
  auto& meetings = block().meetings[thread.warp];
  size_t at = 0;
  while (at < meetings.size() && meetings[at].mask != mask) ++at;
  if (at == meetings.size()) meetings.push_back({mask, 0, operation, {}});
  WarpMeeting& meeting = meetings[at];
  if (meeting.operation != operation) {
    fail("lanes of a warp must come to the same operation, got " + std::string(operation) +
         " and " + meeting.operation);
  }
  meeting.arrived |= 1u << thread.lane;
  meeting.arguments[thread.lane] = argument;
  if (meeting.arrived != mask) {
    suspend(std::string(operation) + " of its warp");
    return;
  }
  const WarpMeeting complete = meetings[at];
  meetings.erase(meetings.begin() + static_cast<std::ptrdiff_t>(at));
  act(complete.arguments);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1) || lane == thread.lane) continue;
    make_runnable(block().threads[thread.warp * 32 + lane]);
  }
}

inline void sync_warp(uint32_t mask) {
  const Unwatched unwatched;
  maybe_switch();
  Phases& phases = block().warp_phases[self().warp][mask & lanes_of_warp()];
  Key& key = phases.current();
  release(key);
  meet_warp(mask, "sync_warp", nullptr, [&phases](void* const*) { ++phases.completed; });
  acquire(key);
}

// Every lane gets the value of the lane that it names.
template <typename T>
T shuffle(uint32_t mask, T value, uint32_t source, const char* operation) {
  struct Argument {
    T value;
    uint32_t source;
    T result;
  };
  const Unwatched unwatched;
  maybe_switch();
  Argument mine{value, source, value};
  meet_warp(mask, operation, &mine, [](void* const* arguments) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (arguments[lane] == nullptr) continue;
      auto& argument = *static_cast<Argument*>(arguments[lane]);
      require(arguments[argument.source] != nullptr,
              "a shuffle must read a lane of its mask, got one outside");
      argument.result = static_cast<Argument*>(arguments[argument.source])->value;
    }
  });
  return mine.result;
}

// Every lane gets `combine` of the values of all lanes of the mask, from the lowest lane on.
template <typename T, typename R, typename Combine>
R reduce_warp(uint32_t mask, T value, R start, const char* operation, const Combine& combine) {
  struct Argument {
    T value;
    R result;
  };
  const Unwatched unwatched;
  maybe_switch();
  Argument mine{value, start};
  meet_warp(mask, operation, &mine, [&](void* const* arguments) {
    R result = start;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (arguments[lane] != nullptr) {
        result = combine(result, static_cast<Argument*>(arguments[lane])->value, lane);
      }
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (arguments[lane] != nullptr) static_cast<Argument*>(arguments[lane])->result = result;
    }
  });
  return mine.result;
}

// Which lane is the hardware's choice, but the same for the same mask every time (PTX ISA,
// elect.sync): drawn once for a launch.
inline bool elect_lane() {
  const Unwatched unwatched;
  maybe_switch();
  bool elected = false;
  meet_warp(kWholeWarp, "elect_lane", &elected, [](void* const* lanes) {
    uint32_t count = 0;
    while (count < 32 && lanes[count] != nullptr) ++count;
    *static_cast<bool*>(lanes[machine->elected_lane % count]) = true;
  });
  return elected;
}

// Threads that have ended are not waited for.
inline void complete_cluster_phase_if_due(Cluster& cluster) {
  const auto all = static_cast<uint32_t>(cluster.blocks.size()) * machine->block_size;
  if (cluster.arrived == 0 || cluster.arrived + cluster.finished < all) return;
  cluster.arrived = 0;
  ++cluster.phases.completed;
}

// barrier.cluster.arrive.release, then .wait.acquire.
inline void sync_cluster() {
  const Unwatched unwatched;
  maybe_switch();
  Cluster& cluster = *block().cluster;
  Key& key = cluster.phases.current();
  release(key);
  ++machine->progress;
  const uint32_t phase = cluster.phases.completed;
  ++cluster.arrived;
  complete_cluster_phase_if_due(cluster);
  wait_until("sync_cluster", [&cluster, phase] { return cluster.phases.completed != phase; });
  acquire(key);
}

inline uint32_t map_shared_address(const void* shared, uint32_t rank) {
  const Unwatched unwatched;
  require(rank < block().cluster->blocks.size(),
          "map_shared_address: the rank must be that of a block of the cluster");
  return shared_address(shared) | (rank + 1) << kRankShift;
}

inline uint32_t load_remote(uint32_t address) {
  const char* at = shared_pointer(address);
  require_aligned(at, 4, "load_remote");
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

inline void store_remote(uint32_t address, uint32_t value) {
  char* at = shared_pointer(address);
  require_aligned(at, 4, "store_remote");
  std::memcpy(at, &value, 4);
}

}  // namespace lowbit::cuda::model
