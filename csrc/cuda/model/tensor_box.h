// Copies of tensor boxes on the model: which bytes of shared and global memory a box pairs.
#pragma once

#include "../ptx/swizzle.cuh"
#include "copy_engine.h"

namespace lowbit::cuda::model {

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
