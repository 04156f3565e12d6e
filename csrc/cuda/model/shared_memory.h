// Shared memory on the model: arrays that start as NaN, with gaps between that nobody may touch.
#pragma once

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "order.h"

namespace lowbit::cuda::model {

// NaN in every float format, -1 as an integer.
inline constexpr unsigned char kGarbage = 0xff;
inline constexpr unsigned char kGap = 0xa5;
inline constexpr size_t kGapBytes = 128;
inline constexpr size_t kPageBytes = 4096;
// Shared addresses of 32 bits: the offset from here in a block's own memory; for another block of
// the cluster its rank plus one in the highest byte.
inline constexpr uint32_t kSharedBase = 1024;
inline constexpr uint32_t kRankShift = 24;

inline char* allocate_arena() {
  void* memory = mmap(nullptr, SharedMemory::kArenaBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("host model: no memory for shared memory");
  poison(memory, SharedMemory::kArenaBytes);
  return static_cast<char*>(memory);
}

// A new array of the block and the gap behind it.
inline SharedMemory::Piece carve(SharedMemory& shared, const void* key, size_t bytes,
                                 size_t alignment) {
  // No stronger alignment than asked for, so that a kernel which needs more is found out.
  size_t offset = (shared.top + alignment - 1) / alignment * alignment;
  if (alignment < kGapBytes && offset % (2 * alignment) == 0) offset += alignment;
  const size_t end = offset + bytes;
  require(end + kGapBytes <= SharedMemory::kArenaBytes,
          "shared memory of a block must fit the model's arena of 512 KiB, got more");
  unpoison(shared.arena + shared.top, end + kGapBytes - shared.top);
  std::memset(shared.arena + shared.top, kGap, offset - shared.top);
  std::memset(shared.arena + offset, kGarbage, bytes);
  std::memset(shared.arena + end, kGap, kGapBytes);
  poison(shared.arena + shared.top, offset - shared.top);
  poison(shared.arena + end, kGapBytes);
  shared.top = end + kGapBytes;
  shared.pieces.push_back({key, offset, bytes});
  return shared.pieces.back();
}

// The array declared at `key`: made by the first thread that comes to its declaration.
inline char* shared_array(const void* key, size_t bytes, size_t alignment) {
  const Unwatched unwatched;
  SharedMemory& shared = block().shared;
  for (const SharedMemory::Piece& piece : shared.pieces) {
    if (piece.key == key) return shared.arena + piece.offset;
  }
  return shared.arena + carve(shared, key, bytes, alignment).offset;
}

inline void require_aligned(const void* address, size_t alignment, const char* operation) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  if (value % alignment != 0) {
    fail(std::string(operation) + ": the address must be aligned to " + std::to_string(alignment) +
         " bytes, got " + std::to_string(value % alignment) + " behind one that is");
  }
}

// The array as bytes of one that the thread has cut out before. Arrays that overlap need a place
// without gaps, so the one that holds all must come first.
inline char* within(const SharedMemory::Cut& cut, size_t offset, size_t bytes, size_t alignment) {
  require(cut.cutters[self().index],
          "threads of a block must cut shared memory in the same way: every array, also one that "
          "only others use");
  const size_t first = offset - cut.start;
  if (offset < cut.start || first + bytes > cut.bytes) {
    fail("an array over others in shared memory must be cut out before them, got bytes " +
         std::to_string(offset) + " to " + std::to_string(offset + bytes) + " over " +
         std::to_string(cut.start) + " to " + std::to_string(cut.start + cut.bytes));
  }
  require_aligned(
      cut.place + first, alignment,
      "an array within another of shared memory, which needs this alignment where it is cut out");
  return cut.place + first;
}

// Array at `offset` of the dynamic shared memory, as the GPU would place it. Those that do not
// overlap lie apart, with gaps between.
inline char* dynamic_array(size_t offset, size_t bytes, size_t alignment) {
  const Unwatched unwatched;
  SharedMemory& shared = block().shared;
  if (offset + bytes > shared.dynamic_bytes) {
    fail("shared memory must be at least " + std::to_string(offset + bytes) +
         " bytes at launch, got " + std::to_string(shared.dynamic_bytes));
  }
  for (SharedMemory::Cut& cut : shared.cuts) {
    const bool same = cut.start == offset && cut.bytes == bytes;
    if (same) cut.cutters[self().index] = true;
    if (same || (offset < cut.start + cut.bytes && cut.start < offset + bytes)) {
      return within(cut, offset, bytes, alignment);
    }
  }
  char* place = shared.arena + carve(shared, nullptr, bytes, alignment).offset;
  std::vector<bool> cutters(machine->block_size);
  cutters[self().index] = true;
  shared.cuts.push_back({offset, bytes, place, std::move(cutters)});
  return place;
}

// Finds writes behind an array also without AddressSanitizer.
inline void check_gaps(Block& block) {
  SharedMemory& shared = block.shared;
  unpoison(shared.arena, shared.top);
  size_t at = 0;
  for (const SharedMemory::Piece& piece : shared.pieces) {
    for (; at < piece.offset; ++at) {
      require(static_cast<unsigned char>(shared.arena[at]) == kGap,
              "shared memory must be written within its arrays, got a write between two");
    }
    at = piece.offset + piece.bytes;
  }
  for (; at < shared.top; ++at) {
    require(static_cast<unsigned char>(shared.arena[at]) == kGap,
            "shared memory must be written within its arrays, got a write behind the last");
  }
}

inline void clear_shared(Block& block) {
  poison(block.shared.arena, block.shared.top);
  const size_t pages = (block.shared.top + kPageBytes - 1) / kPageBytes;
  if (pages > 0) forget_pages(block.shared.arena, pages * kPageBytes);
  block.shared.top = 0;
  block.shared.pieces.clear();
  block.shared.cuts.clear();
}

inline bool is_shared(const Block& block, const void* address) {
  const char* arena = block.shared.arena;
  return address >= arena && address < arena + SharedMemory::kArenaBytes;
}

inline void require_global(const void* address, const char* operation) {
  if (is_shared(block(), address)) {
    fail(std::string(operation) + ": the address must be one of global memory, got shared");
  }
}

inline uint32_t shared_address(const void* pointer) {
  const Unwatched unwatched;
  require(is_shared(block(), pointer), "the address must be one of shared memory of its block");
  return static_cast<uint32_t>(static_cast<const char*>(pointer) - block().shared.arena) +
         kSharedBase;
}

// Its last thread has not ended.
inline void require_alive(const Block& block) {
  require(block.finished < block.threads.size(),
          "shared memory of a block must be used before that block ends, got one that ended");
}

// The block of the cluster that a shared address belongs to.
inline Block& block_of(uint32_t address) {
  const uint32_t rank = address >> kRankShift;
  if (rank == 0) return block();
  const Cluster& cluster = *block().cluster;
  require(rank <= cluster.blocks.size(), "the shared address must name a block of the cluster");
  Block& other = *cluster.blocks[rank - 1];
  require_alive(other);
  return other;
}

inline char* shared_pointer(uint32_t address) {
  const uint32_t offset = address & ((1u << kRankShift) - 1);
  require(offset >= kSharedBase && offset < kSharedBase + SharedMemory::kArenaBytes,
          "the shared address must be one that shared_address gave");
  return block_of(address).shared.arena + (offset - kSharedBase);
}

}  // namespace lowbit::cuda::model
