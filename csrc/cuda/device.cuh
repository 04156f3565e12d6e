// What kernel texts use of the GPU, in two bodies: CUDA, and a model of it in plain C++ for the
// host (LOWBIT_HOST_MODEL), in which a kernel is an ordinary function that launch.cuh calls once
// for every thread. The only file with threadIdx, asm and conversions between number formats.
#pragma once

#include <cstdint>
#include <cstring>

#include "../weight_format.h"

#ifdef LOWBIT_HOST_MODEL
#include <stdexcept>
#include <string>
#elif !defined(__CUDACC__)
#error "kernel texts need nvcc, or LOWBIT_HOST_MODEL for the model of the GPU on the host"
#endif

#ifdef LOWBIT_HOST_MODEL

#define LOWBIT_DEVICE inline
#define LOWBIT_KERNEL(max_threads) inline void

namespace lowbit::cuda {

// Which thread of which block the host is running; launch() sets it.
struct ThreadPosition {
  uint32_t thread, block, block_size, grid_size;
};
inline thread_local ThreadPosition current_thread{};

LOWBIT_DEVICE uint32_t thread_index() { return current_thread.thread; }
LOWBIT_DEVICE uint32_t block_index() { return current_thread.block; }
LOWBIT_DEVICE uint32_t block_size() { return current_thread.block_size; }

LOWBIT_DEVICE float mul_rn(float a, float b) { return a * b; }
LOWBIT_DEVICE float add_rn(float a, float b) { return a + b; }
LOWBIT_DEVICE float sub_rn(float a, float b) { return a - b; }

// Reads memory that no thread of the launch writes.
template <typename T>
LOWBIT_DEVICE T load_constant(const T* address) {
  return *address;
}

// The GPU stops a kernel at a misaligned access.
LOWBIT_DEVICE void store_16_bytes(void* address, const uint32_t (&words)[4]) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    throw std::runtime_error("store_16_bytes: address must be aligned to 16 bytes, got one at " +
                             std::to_string(reinterpret_cast<uintptr_t>(address) % 16));
  }
  std::memcpy(address, words, 16);
}

LOWBIT_DEVICE float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

LOWBIT_DEVICE uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

LOWBIT_DEVICE float float16_to_float(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof(value));
  return static_cast<float>(value);
}

LOWBIT_DEVICE uint16_t float_to_float16(float value) {
  const auto rounded = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

LOWBIT_DEVICE uint16_t float_to_bfloat16(float value) {
  if (value != value) return 0x7fff;  // as the GPU's conversion gives it
  const uint32_t bits = float_to_bits(value);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

LOWBIT_DEVICE uint32_t floats_to_float16x2(float low, float high) {
  return float_to_float16(low) | static_cast<uint32_t>(float_to_float16(high)) << 16;
}

LOWBIT_DEVICE uint32_t floats_to_bfloat16x2(float low, float high) {
  return float_to_bfloat16(low) | static_cast<uint32_t>(float_to_bfloat16(high)) << 16;
}

}  // namespace lowbit::cuda

#else

#define LOWBIT_DEVICE __device__ __forceinline__
#define LOWBIT_KERNEL(max_threads) __global__ void __launch_bounds__(max_threads)

namespace lowbit::cuda {

LOWBIT_DEVICE uint32_t thread_index() { return threadIdx.x; }
LOWBIT_DEVICE uint32_t block_index() { return blockIdx.x; }
LOWBIT_DEVICE uint32_t block_size() { return blockDim.x; }

// Plain * and + may be fused to one rounding; these never are.
LOWBIT_DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
LOWBIT_DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
LOWBIT_DEVICE float sub_rn(float a, float b) { return __fsub_rn(a, b); }

template <typename T>
LOWBIT_DEVICE T load_constant(const T* address) {
  return __ldg(address);
}

LOWBIT_DEVICE void store_16_bytes(void* address, const uint32_t (&words)[4]) {
  *static_cast<uint4*>(address) = make_uint4(words[0], words[1], words[2], words[3]);
}

LOWBIT_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
LOWBIT_DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

LOWBIT_DEVICE float float16_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// The two-element conversions put their first source in the upper half (PTX ISA, cvt).
LOWBIT_DEVICE uint32_t floats_to_float16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

LOWBIT_DEVICE uint32_t floats_to_bfloat16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace lowbit::cuda

#endif

// ---- the same text in both worlds ----

namespace lowbit::cuda {

LOWBIT_DEVICE float bfloat16_to_float(uint16_t bits) {
  return bits_to_float(static_cast<uint32_t>(bits) << 16);
}

// float(value) for value < 2^23: as the mantissa of 2^23 + value, which costs two operations of
// full rate where the conversion instruction has a quarter of it.
LOWBIT_DEVICE float small_integer_to_float(uint32_t value) {
  return sub_rn(bits_to_float(0x4b000000u | value), 0x1p23f);
}

// Sign, 4 exponent bits of bias 7, 3 mantissa bits; no infinity, NaN is all ones (OCP FP8 E4M3).
// Read as fp32 bits, exponent and mantissa give the value times 2^(7 - 127), subnormals included.
LOWBIT_DEVICE float float8_e4m3_to_float(uint8_t bits) {
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return bits_to_float(0x7fc00000u);
  const float value = mul_rn(bits_to_float(magnitude << 20), 0x1p120f);
  return bits & 0x80u ? -value : value;
}

// 2^(bits - 127); all ones is NaN (OCP MX E8M0). 2^-127 is an fp32 subnormal.
LOWBIT_DEVICE float float8_e8m0_to_float(uint8_t bits) {
  if (bits == 0xffu) return bits_to_float(0x7fc00000u);
  return bits_to_float(bits == 0 ? 0x00400000u : static_cast<uint32_t>(bits) << 23);
}

// Element `index` of an array of `type`, as fp32.
LOWBIT_DEVICE float load_element(ElementType type, const void* array, int64_t index) {
  const auto* bytes = static_cast<const uint8_t*>(array);
  const auto* halves = static_cast<const uint16_t*>(array);
  switch (type) {
    case ElementType::kFloat32:
      return load_constant(static_cast<const float*>(array) + index);
    case ElementType::kFloat16:
      return float16_to_float(load_constant(halves + index));
    case ElementType::kBFloat16:
      return bfloat16_to_float(load_constant(halves + index));
    case ElementType::kFloat8E4M3:
      return float8_e4m3_to_float(load_constant(bytes + index));
    case ElementType::kFloat8E8M0:
      return float8_e8m0_to_float(load_constant(bytes + index));
    case ElementType::kUInt8:
      return small_integer_to_float(load_constant(bytes + index));
    case ElementType::kInt32:
      break;  // codes are never read as numbers
  }
  return 0.0f;
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

}  // namespace lowbit::cuda
