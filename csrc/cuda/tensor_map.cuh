// TensorMap: how the copy engine finds boxes of a tensor in global memory; a kernel's parameter
// (LOWBIT_GRID_CONSTANT) that the host makes.
#pragma once

#include <stdexcept>
#include <string>

#include "platform.cuh"
#include "ptx/swizzle.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "model/tensor_box.h"
#else
#include <cuda.h>
#include <cuda_runtime_api.h>
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL
using TensorMap = model::TensorMap;
#else
using TensorMap = CUtensorMap;
#endif

// Dimensions from the innermost on, whose elements are neighbours.
struct TensorMapSpec {
  void* address;
  uint32_t element_bytes;  // 1, 2 or 4
  uint32_t rank;           // 2 or 3
  uint64_t sizes[3];       // elements
  uint64_t strides[3];     // bytes; the first is that of an element
  uint32_t box[3];         // elements that one copy moves
  Swizzle swizzle;
};

inline void require_tensor_map(bool ok, const char* need, uint64_t got) {
  if (ok) return;
  throw std::runtime_error("tensor map: " + std::string(need) + ", got " + std::to_string(got));
}

// What cuTensorMapEncodeTiled would refuse with an error that says less.
inline void check_tensor_map(const TensorMapSpec& s) {
  require_tensor_map(s.rank == 2 || s.rank == 3, "rank must be 2 or 3", s.rank);
  require_tensor_map(s.element_bytes == 1 || s.element_bytes == 2 || s.element_bytes == 4,
                     "elements must have 1, 2 or 4 bytes", s.element_bytes);
  const auto address = reinterpret_cast<uintptr_t>(s.address);
  require_tensor_map(address % 16 == 0, "the address must be aligned to 16 bytes", address % 16);
  for (uint32_t d = 0; d < s.rank; ++d) {
    require_tensor_map(s.sizes[d] >= 1 && s.sizes[d] <= uint64_t{1} << 32,
                       "a size must be 1 to 2^32", s.sizes[d]);
    require_tensor_map(s.box[d] >= 1 && s.box[d] <= 256, "a box must be 1 to 256 wide", s.box[d]);
    if (d == 0) continue;
    require_tensor_map(s.strides[d] % 16 == 0 && s.strides[d] < uint64_t{1} << 40,
                       "strides must be multiples of 16 bytes below 2^40", s.strides[d]);
  }
  require_tensor_map(s.strides[0] == s.element_bytes,
                     "the innermost stride must be that of an element", s.strides[0]);
  const uint64_t row = uint64_t{s.box[0]} * s.element_bytes;
  require_tensor_map(row % 16 == 0, "rows of the box must be multiples of 16 bytes", row);
  // Narrower ones lie a swizzle's width apart in shared memory (CUDA C++ Programming Guide,
  // "Swizzle modes"), with gaps that no kernel here has a use for.
  require_tensor_map(s.swizzle == Swizzle::kNone || row == swizzle_bytes(s.swizzle),
                     "rows of the box must be as wide as the swizzle", row);
}

#ifdef LOWBIT_HOST_MODEL

inline TensorMap make_tensor_map(const TensorMapSpec& s) {
  check_tensor_map(s);
  TensorMap map{};
  map.address = static_cast<char*>(s.address);
  map.rank = s.rank;
  map.element_bytes = s.element_bytes;
  map.swizzle_bytes = swizzle_bytes(s.swizzle);
  for (uint32_t d = 0; d < s.rank; ++d) {
    map.box[d] = s.box[d];
    map.sizes[d] = s.sizes[d];
    map.strides[d] = s.strides[d];
  }
  return map;
}

#else

// Through the runtime, so that nothing is linked to the driver's library.
inline auto tensor_map_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    throw std::runtime_error("tensor map: the driver must have cuTensorMapEncodeTiled (CUDA 12)");
  }
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

inline TensorMap make_tensor_map(const TensorMapSpec& s) {
  check_tensor_map(s);
  constexpr CUtensorMapDataType kTypes[] = {CU_TENSOR_MAP_DATA_TYPE_UINT8,
                                            CU_TENSOR_MAP_DATA_TYPE_UINT16,
                                            CU_TENSOR_MAP_DATA_TYPE_UINT32};
  constexpr CUtensorMapSwizzle kSwizzles[] = {CU_TENSOR_MAP_SWIZZLE_NONE,
                                              CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_SWIZZLE_64B,
                                              CU_TENSOR_MAP_SWIZZLE_32B};
  constexpr cuuint32_t kEveryElement[] = {1, 1, 1};
  static const auto encode = tensor_map_encoder();
  const cuuint64_t sizes[] = {s.sizes[0], s.sizes[1], s.sizes[2]};
  const cuuint64_t outer_strides[] = {s.strides[1], s.strides[2]};
  TensorMap map;
  const CUresult result = encode(
      &map, kTypes[s.element_bytes / 2], s.rank, s.address, sizes, outer_strides, s.box,
      kEveryElement, CU_TENSOR_MAP_INTERLEAVE_NONE, kSwizzles[static_cast<uint32_t>(s.swizzle)],
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require_tensor_map(result == CUDA_SUCCESS, "the driver must accept it, error", result);
  return map;
}

#endif

}  // namespace lowbit::cuda
