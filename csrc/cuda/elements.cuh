// Elements of arrays whose type is known at run time, read as fp32 and written from it.
#pragma once

#include "../weight_format.h"
#include "conversions.cuh"
#include "ptx/memory_order.cuh"

namespace lowbit::cuda {

// Element `index` of an array of `type`, as fp32; `load` reads what is stored.
template <typename Load>
LOWBIT_DEVICE float element_by(const Load& load, ElementType type, const void* array,
                               int64_t index) {
  const auto* bytes = static_cast<const uint8_t*>(array);
  const auto* halves = static_cast<const uint16_t*>(array);
  switch (type) {
    case ElementType::kFloat32:
      return load(static_cast<const float*>(array) + index);
    case ElementType::kFloat16:
      return float16_to_float(load(halves + index));
    case ElementType::kBFloat16:
      return bfloat16_to_float(load(halves + index));
    case ElementType::kFloat8E4M3:
      return float8_e4m3_to_float(load(bytes + index));
    case ElementType::kFloat8E8M0:
      return float8_e8m0_to_float(load(bytes + index));
    case ElementType::kUInt8:
      return small_integer_to_float(load(bytes + index));
    case ElementType::kInt32:
      break;  // codes are never read as numbers
  }
  return 0.0f;
}

// Of global memory that no thread of the launch writes.
LOWBIT_DEVICE float load_element(ElementType type, const void* array, int64_t index) {
  return element_by([](const auto* address) { return load_constant(address); }, type, array, index);
}

// `count` neighbours from `index` on, of any memory: one decision on their type for all of them.
template <int kCount>
LOWBIT_DEVICE void read_elements(ElementType type, const void* array, int64_t index,
                                 float (&values)[kCount]) {
  const auto read = [&](ElementType known) {
    LOWBIT_UNROLL
    for (int i = 0; i < kCount; ++i) {
      values[i] = element_by([](const auto* address) { return *address; }, known, array, index + i);
    }
  };
  switch (type) {
    case ElementType::kFloat32:
      return read(ElementType::kFloat32);
    case ElementType::kFloat16:
      return read(ElementType::kFloat16);
    case ElementType::kBFloat16:
      return read(ElementType::kBFloat16);
    case ElementType::kFloat8E4M3:
      return read(ElementType::kFloat8E4M3);
    case ElementType::kFloat8E8M0:
      return read(ElementType::kFloat8E8M0);
    default:
      return read(ElementType::kUInt8);
  }
}

// Bytes of one element that a kernel writes.
LOWBIT_HOST_DEVICE constexpr int output_bytes(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : 2;
}

// Two neighbours as stored, or one of float32: what 32 bits of output hold.
template <ElementType kType>
LOWBIT_DEVICE uint32_t pack_output(const float* values) {
  if constexpr (kType == ElementType::kFloat32) {
    return float_to_bits(values[0]);
  } else if constexpr (kType == ElementType::kFloat16) {
    return floats_to_float16x2(values[0], values[1]);
  } else {
    static_assert(kType == ElementType::kBFloat16);
    return floats_to_bfloat16x2(values[0], values[1]);
  }
}

// The value rounded to `type`, float32, float16 or bfloat16, as element `index` of an array.
LOWBIT_DEVICE void store_element(ElementType type, void* array, int64_t index, float value) {
  auto* halves = static_cast<uint16_t*>(array);
  if (type == ElementType::kFloat32) {
    static_cast<float*>(array)[index] = value;
  } else if (type == ElementType::kFloat16) {
    halves[index] = static_cast<uint16_t>(floats_to_float16x2(value, 0.0f));
  } else {
    halves[index] = static_cast<uint16_t>(floats_to_bfloat16x2(value, 0.0f));
  }
}

}  // namespace lowbit::cuda
