// How rows in shared memory are permuted so that the copy engine, the tensor cores and ldmatrix
// reach eight of them without bank conflicts.
#pragma once

#include "../platform.cuh"

namespace lowbit::cuda {

// Rows of so many bytes; values as in a matrix descriptor.
enum class Swizzle : uint32_t { kNone = 0, k128Bytes = 1, k64Bytes = 2, k32Bytes = 3 };

LOWBIT_HOST_DEVICE constexpr uint32_t swizzle_bytes(Swizzle swizzle) {
  return swizzle == Swizzle::kNone ? 0 : 256u >> static_cast<uint32_t>(swizzle);
}

// Where the byte at `offset` lies that would be there without swizzle, from a start aligned to
// eight rows: bits 4 to 6 (128 bytes), 4 to 5 (64) or 4 (32) are combined with those from bit 7 on
// (PTX ISA, "Swizzling modes").
LOWBIT_HOST_DEVICE constexpr uint32_t swizzled(uint32_t offset, uint32_t bytes) {
  return bytes == 0 ? offset : offset ^ (offset >> 3 & (bytes - 16));
}

template <Swizzle kSwizzle>
LOWBIT_HOST_DEVICE constexpr uint32_t swizzled(uint32_t offset) {
  return swizzled(offset, swizzle_bytes(kSwizzle));
}

}  // namespace lowbit::cuda
