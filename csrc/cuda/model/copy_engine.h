// The copy engine on the model: bulk copies, with their arrivals at mbarriers. What they write is
// garbage from the issue until the scheduler completes it.
#pragma once

#include "mbarrier.h"

namespace lowbit::cuda::model {

// A piece of contiguous memory that a copy moves; zeros are written where src is null.
struct Stretch {
  char* dst;
  const char* src;
  uint32_t bytes;
};

using Stretches = std::vector<Stretch>;

// Reads the first and the last byte of each stretch of the source at the issue: a sanitizer then
// names the thread and the line of a copy that leaves its array, which it would not find when the
// scheduler moves the bytes.
inline void touch(const Stretches& stretches) {
  for (const Stretch& s : stretches) {
    char first_and_last = 0;
    if (s.src != nullptr) {
      std::memcpy(&first_and_last, s.src, 1);
      std::memcpy(&first_and_last, s.src + s.bytes - 1, 1);
    }
  }
}

inline void check_bulk_copy(const void* shared, const void* global, uint32_t bytes) {
  const Unwatched unwatched;
  shared_address(shared);
  require_aligned(shared, 16, "bulk copy, shared memory");
  require_aligned(global, 16, "bulk copy, global memory");
  require_global(global, "bulk copy, global memory");
  require(bytes > 0 && bytes % 16 == 0, "a bulk copy must move a multiple of 16 bytes");
}

inline void move_bytes(const Stretches& stretches) {
  for (const Stretch& s : stretches) {
    if (s.src == nullptr) {
      std::memset(s.dst, 0, s.bytes);
    } else {
      std::memcpy(s.dst, s.src, s.bytes);
    }
  }
}

// Accesses of the engine that calls it.
inline void report(const Stretches& stretches) {
  for (const Stretch& s : stretches) {
    if (s.src != nullptr) Engine::reads(s.src, s.bytes);
    Engine::writes(s.dst, s.bytes);
  }
}

// What a load overwrites may be in use by nobody: its thread must be ordered behind all accesses,
// and its view behind all writes. No fence is asked for behind what threads have read: that the
// readers arrive at an mbarrier is all that pipelines do. Accesses so far are then forgotten, so
// that the engine, which is ordered behind the view alone, can write without passing on what the
// thread did without a fence.
inline void take_over(const Stretches& stretches) {
  AsyncUnits& async = async_units();
  async.view.run([&] {
    for (const Stretch& s : stretches) Engine::reads(s.dst, s.bytes);
  });
  acquire(async.seen());
  for (const Stretch& s : stretches) Engine::writes(s.dst, s.bytes);
  for (const Stretch& s : stretches) forget_bytes(s.dst, s.bytes);
}

// The accesses of a copy, at its issue, for others must have come to an end then: behind what the
// view is behind. Who acquires its key comes behind the copy.
inline void report(EngineUse& copy, const Stretches& stretches) {
  void* seen = async_units().seen();
  copy.engine->run([&] {
    acquire(seen);
    report(stretches);
    release(&copy.key);
    release(&machine->end_key);
  });
}

// To shared memory of `target`, of which `bytes` arrive at its mbarrier.
inline void copy_to_shared(Block& target, const Stretches& stretches, const void* mbarrier,
                           uint32_t bytes) {
  touch(stretches);
  const Unwatched unwatched;
  maybe_switch();
  require_alive(target);
  require(mbarrier_at(target, mbarrier).shown,
          "fence_mbarrier_init must stand between the initialization of an mbarrier and copies");
  for (const Stretch& s : stretches) std::memset(s.dst, kGarbage, s.bytes);
  take_over(stretches);
  EngineUse& copy = self().loads.emplace_back(async_units().copies);
  report(copy, stretches);
  start_operation([&target, stretches, mbarrier, bytes, &copy] {
    require_alive(target);
    move_bytes(stretches);
    arrive_bytes(target, mbarrier, bytes, copy);
  });
}

// From shared to global memory, in the thread's open bulk group. The engine reads through the async
// proxy: what threads wrote must have been fenced.
inline void copy_to_global(const Stretches& stretches) {
  touch(stretches);
  const Unwatched unwatched;
  maybe_switch();
  Thread& thread = self();
  ++thread.bulk_stores_open;
  BulkStore& store = thread.bulk_stores.emplace_back(
      BulkStore{thread.bulk_groups, EngineUse(async_units().copies)});
  report(store.copy, stretches);
  start_operation([&thread, &store, stretches] {
    move_bytes(stretches);
    store.done = true;
    --thread.bulk_stores_open;
  });
}

inline void commit_bulk_stores() {
  const Unwatched unwatched;
  ++self().bulk_groups;
}

// Until at most `pending` of the newest groups are in flight.
inline void wait_bulk_stores(uint32_t pending) {
  const Unwatched unwatched;
  Thread& thread = self();
  const auto waited_for = [&thread, pending](const BulkStore& store) {
    return store.group + pending < thread.bulk_groups;
  };
  wait_until("its bulk copies to global memory", [&thread, waited_for] {
    for (const BulkStore& store : thread.bulk_stores) {
      if (!store.done && waited_for(store)) return false;
    }
    return true;
  });
  thread.bulk_stores.remove_if([&](BulkStore& store) {
    if (waited_for(store)) acquire_copy(store.copy);
    return waited_for(store);
  });
}

}  // namespace lowbit::cuda::model
