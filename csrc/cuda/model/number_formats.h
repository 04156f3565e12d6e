// Values of what tensor cores multiply, on the model.
#pragma once

#include <cstdint>
#include <cstring>

#include "../conversions.cuh"

namespace lowbit::cuda::model {

enum class Operand { kFloat16, kBFloat16, kFloat8E4M3, kInt8 };

constexpr uint32_t operand_bytes(Operand type) {
  return type == Operand::kFloat16 || type == Operand::kBFloat16 ? 2 : 1;
}

// Exact in double for every type.
inline double operand_value(Operand type, const char* address) {
  uint16_t half = 0;
  uint8_t byte = 0;
  switch (type) {
    case Operand::kFloat16:
      std::memcpy(&half, address, 2);
      return float16_to_float(half);
    case Operand::kBFloat16:
      std::memcpy(&half, address, 2);
      return bfloat16_to_float(half);
    case Operand::kFloat8E4M3:
      std::memcpy(&byte, address, 1);
      return float8_e4m3_to_float(byte);
    case Operand::kInt8:
      break;
  }
  std::memcpy(&byte, address, 1);
  return static_cast<int8_t>(byte);
}

// Sum and accumulator of one output. Integers are exact and wrap; floats are summed in double and
// rounded once, where hardware rounds or truncates in between: compare with a tolerance.
template <typename T>
T accumulate(T accumulator, double sum);

template <>
inline float accumulate(float accumulator, double sum) {
  return static_cast<float>(accumulator + sum);
}

template <>
inline int32_t accumulate(int32_t accumulator, double sum) {
  return static_cast<int32_t>(static_cast<uint32_t>(accumulator) +
                              static_cast<uint32_t>(static_cast<int64_t>(sum)));
}

}  // namespace lowbit::cuda::model
