// Arithmetic that is never fused, and conversions between number formats: nvcc body and host body.
#pragma once

#include <cmath>

#include "platform.cuh"

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE float mul_rn(float a, float b) { return a * b; }
LOWBIT_DEVICE float add_rn(float a, float b) { return a + b; }
LOWBIT_DEVICE float sub_rn(float a, float b) { return a - b; }
LOWBIT_DEVICE float fma_rn(float a, float b, float c) { return std::fma(a, b, c); }

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

// NaN as the GPU's conversions give it.
LOWBIT_DEVICE uint16_t float_to_float16(float value) {
  if (value != value) return 0x7fff;
  const auto rounded = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

LOWBIT_DEVICE uint16_t float_to_bfloat16(float value) {
  if (value != value) return 0x7fff;
  const uint32_t bits = float_to_bits(value);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

LOWBIT_DEVICE uint32_t floats_to_float16x2(float low, float high) {
  return float_to_float16(low) | static_cast<uint32_t>(float_to_float16(high)) << 16;
}

LOWBIT_DEVICE uint32_t floats_to_bfloat16x2(float low, float high) {
  return float_to_bfloat16(low) | static_cast<uint32_t>(float_to_bfloat16(high)) << 16;
}

#else

// Plain * and + may be fused to one rounding; these never are.
LOWBIT_DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
LOWBIT_DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
LOWBIT_DEVICE float sub_rn(float a, float b) { return __fsub_rn(a, b); }
// a * b + c, rounded once.
LOWBIT_DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }

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

#endif

// ---- the same text in both worlds ----

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

}  // namespace lowbit::cuda
