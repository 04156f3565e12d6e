// The copy engine on the model: bulk copies of one dimension and copies of tensor boxes, with their
// arrivals at mbarriers. What they write is garbage from the issue until the scheduler completes
// it.
#pragma once

#include "../ptx/swizzle.cuh"
#include "mbarrier.h"

namespace lowbit::cuda::model {

// A piece of contiguous memory that a copy moves; zeros are written where src is null.
struct Stretch {
  char* dst;
  const char* src;
  uint32_t bytes;
};

using Stretches = std::vector<Stretch>;

// Asks for every byte now, on the thread whose mistake it would be.
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
// view is behind. Who acquires `key` comes behind the copy.
inline void report(Engine& unit, const Stretches& stretches, void* key) {
  void* seen = async_units().seen();
  unit.run([&] {
    acquire(seen);
    report(stretches);
    release(key);
    release(&machine->end_key);
  });
}

// To shared memory of `target`, of which `bytes` arrive at its mbarrier.
inline void copy_to_shared(Block& target, const Stretches& stretches, const void* mbarrier,
                           uint32_t bytes) {
  touch(stretches);
  const Unwatched unwatched;
  maybe_switch();
  require(mbarrier_at(target, mbarrier).shown,
          "fence_mbarrier_init must stand between the initialization of an mbarrier and copies");
  for (const Stretch& s : stretches) std::memset(s.dst, kGarbage, s.bytes);
  take_over(stretches);
  AsyncUnits& units = async_units();
  Engine& engine = units.copies.take();
  void* key = &self().load_keys.emplace_back();
  report(engine, stretches, key);
  start_operation([&units, &engine, &target, stretches, mbarrier, bytes, key] {
    move_bytes(stretches);
    units.copies.give_back(engine);
    arrive_bytes(target, mbarrier, bytes, key);
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
  BulkStore& store = thread.bulk_stores.emplace_back(BulkStore{thread.bulk_groups});
  AsyncUnits& units = async_units();
  Engine& engine = units.copies.take();
  report(engine, stretches, &store.key);
  start_operation([&units, &engine, &thread, &store, stretches] {
    move_bytes(stretches);
    units.copies.give_back(engine);
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
    if (waited_for(store)) acquire_operation(&store.key);
    return waited_for(store);
  });
}

// ---- boxes of tensors ----

// What cuTensorMapEncodeTiled encodes; extents and strides from the innermost dimension on.
struct alignas(64) TensorMap {
  char* address;
  uint32_t rank, element_bytes, swizzle_bytes;
  uint32_t box[5];
  uint64_t sizes[5];
  uint64_t strides[5];  // bytes; that of the innermost dimension is the element's size
};

inline uint32_t box_bytes(const TensorMap& map) {
  uint32_t bytes = map.element_bytes;
  for (uint32_t d = 0; d < map.rank; ++d) bytes *= map.box[d];
  return bytes;
}

// Calls visit(address in the tensor, or null outside; offset in the box) for every element.
template <typename Visit>
void for_each_element(const TensorMap& map, const int32_t* corner, const Visit& visit) {
  const uint32_t row_bytes = map.box[0] * map.element_bytes;
  const uint32_t rows = box_bytes(map) / row_bytes;
  for (uint32_t row = 0; row < rows; ++row) {
    bool inside = true;
    uint32_t rest = row;
    char* start = map.address;
    for (uint32_t d = 1; d < map.rank; ++d) {
      const int64_t at = int64_t{corner[d]} + rest % map.box[d];
      rest /= map.box[d];
      inside = inside && at >= 0 && at < static_cast<int64_t>(map.sizes[d]);
      start += at * static_cast<int64_t>(map.strides[d]);
    }
    for (uint32_t i = 0; i < map.box[0]; ++i) {
      const int64_t column = int64_t{corner[0]} + i;
      const bool here = inside && column >= 0 && column < static_cast<int64_t>(map.sizes[0]);
      visit(here ? start + column * map.element_bytes : nullptr,
            row * row_bytes + i * map.element_bytes);
    }
  }
}

// Joins what continues the last stretch.
inline void append(Stretches& stretches, const Stretch& next) {
  if (!stretches.empty()) {
    Stretch& last = stretches.back();
    const bool same_source = next.src == nullptr
                                 ? last.src == nullptr
                                 : last.src != nullptr && last.src + last.bytes == next.src;
    if (same_source && last.dst + last.bytes == next.dst) {
      last.bytes += next.bytes;
      return;
    }
  }
  stretches.push_back(next);
}

// Elements of the box in shared memory at `shared` of `target`, beside where they lie in the
// tensor.
inline Stretches box_to_shared(const TensorMap& map, const int32_t* corner, char* shared) {
  const Unwatched unwatched;
  Stretches stretches;
  for_each_element(map, corner, [&](const char* global, uint32_t offset) {
    append(stretches, {shared + swizzled(offset, map.swizzle_bytes), global, map.element_bytes});
  });
  return stretches;
}

// Elements outside the tensor are not written.
inline Stretches box_to_global(const TensorMap& map, const int32_t* corner, const char* shared) {
  const Unwatched unwatched;
  Stretches stretches;
  for_each_element(map, corner, [&](char* global, uint32_t offset) {
    if (global == nullptr) return;
    append(stretches, {global, shared + swizzled(offset, map.swizzle_bytes), map.element_bytes});
  });
  return stretches;
}

inline void check_box(const TensorMap& map, size_t rank, const void* shared) {
  const Unwatched unwatched;
  shared_address(shared);
  require(map.rank == rank, "a tensor copy must have as many coordinates as its tensor dimensions");
  require_aligned(shared, map.swizzle_bytes == 0 ? 128 : map.swizzle_bytes * 8,
                  "tensor copy, shared memory");
}

// To each block of the cluster whose bit is set, or to the own one if none is.
inline void load_box(const TensorMap* map, std::vector<int32_t> corner, void* shared,
                     const void* mbarrier, uint16_t blocks) {
  check_box(*map, corner.size(), shared);
  const char* arena = block().shared.arena;
  for (Block* target : block().cluster->blocks) {
    if (blocks == 0 ? target != &block() : !(blocks >> target->rank & 1)) continue;
    const auto there = [&](const void* here) {
      return target->shared.arena + (static_cast<const char*>(here) - arena);
    };
    copy_to_shared(*target, box_to_shared(*map, corner.data(), there(shared)), there(mbarrier),
                   box_bytes(*map));
  }
}

inline void store_box(const TensorMap* map, std::vector<int32_t> corner, const void* shared) {
  check_box(*map, corner.size(), shared);
  copy_to_global(box_to_global(*map, corner.data(), static_cast<const char*>(shared)));
}

}  // namespace lowbit::cuda::model
