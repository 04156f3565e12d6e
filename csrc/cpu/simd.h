// Vectors of 16 fp32 or int32 lanes, once per level of the instruction set, under the same names:
//   lowbit::cpu::scalar        plain loops; the specification, and all there is off x86
//   lowbit::cpu::avx2          AVX2 + FMA + F16C, two registers a vector
//   lowbit::cpu::avx512        AVX-512 F, BW, VL, DQ
//   lowbit::cpu::avx512_vnni   and its int8 dot products
//   lowbit::cpu::avx512_bf16   and its bfloat16 dot products
//   lowbit::cpu::amx           and tiles of int8 and bfloat16
// Sixteen lanes everywhere and a fused fma() everywhere make a kernel's results equal to the last
// bit on all of them (but for the payload of a NaN); integers are exact anyway. Only bfloat16 dot
// products add in an order of their own. simd/ holds every intrinsic of the project.
//
// Bitwise equality also needs separate mul() and add() to stay separate: GCC fuses intrinsics as it
// does operators, so every file must be compiled with -ffp-contract=off, which no preprocessor
// symbol shows. The bitwise tests of dequantize_weight fail without it.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__FAST_MATH__)
#error "lowbit kernels rely on IEEE arithmetic: do not compile them with -ffast-math"
#endif

static_assert(std::endian::native == std::endian::little, "packed codes are little-endian");

#if (defined(__x86_64__) || defined(_M_X64)) && !defined(LOWBIT_SCALAR_ONLY)
#define LOWBIT_X86 1
#pragma GCC diagnostic push
#if !defined(__clang__)  // GCC 12 takes its own _mm512_undefined_*() for a mistake
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define LOWBIT_INLINE [[gnu::always_inline]] inline

#define LOWBIT_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define LOWBIT_UNROLL LOWBIT_PRAGMA(unroll)
#define LOWBIT_BEGIN_ISA(names) \
  LOWBIT_PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define LOWBIT_END_ISA LOWBIT_PRAGMA(clang attribute pop)
#else
#define LOWBIT_UNROLL LOWBIT_PRAGMA(GCC unroll 16)
#define LOWBIT_BEGIN_ISA(names)   \
  LOWBIT_PRAGMA(GCC push_options) \
  LOWBIT_PRAGMA(GCC target(names))
#define LOWBIT_END_ISA LOWBIT_PRAGMA(GCC pop_options)
#endif
#define LOWBIT_BEGIN_AVX2 LOWBIT_BEGIN_ISA("avx2,fma,f16c")
#define LOWBIT_AVX512 "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
#define LOWBIT_BEGIN_AVX512 LOWBIT_BEGIN_ISA(LOWBIT_AVX512)
#define LOWBIT_BEGIN_AVX512_VNNI LOWBIT_BEGIN_ISA(LOWBIT_AVX512 ",avx512vnni")
#define LOWBIT_BEGIN_AVX512_BF16 LOWBIT_BEGIN_ISA(LOWBIT_AVX512 ",avx512vnni,avx512bf16")
#define LOWBIT_BEGIN_AMX \
  LOWBIT_BEGIN_ISA(LOWBIT_AVX512 ",avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16")

namespace lowbit::cpu {

inline constexpr int kLanes = 16;

// ---- small floats, one at a time: what the vector conversions below mean ----

inline float float16_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24 is exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t quiet = exponent == 31 && mantissa ? 0x400000u : 0;
  const uint32_t rebased = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | rebased << 23 | mantissa << 13 | quiet);
}

// Round half to even; overflow to infinity.
inline uint16_t float_to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the rounded subnormal at the end
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

inline float bfloat16_to_float(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// Round half to even; a NaN stays one.
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinities, 0x7f and 0xff are NaN.
constexpr float float8_e4m3_to_float(uint8_t value) {
  const int exponent = (value >> 3) & 15;
  const int mantissa = value & 7;
  if ((value & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  float magnitude = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8) * 0x1p-9f;
  for (int i = 1; i < exponent; ++i) magnitude *= 2.0f;
  return value & 0x80 ? -magnitude : magnitude;
}

// A power of two, 2^(value - 127); 255 is NaN.
constexpr float float8_e8m0_to_float(uint8_t value) {
  if (value == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(value == 0 ? 0x00400000u : static_cast<uint32_t>(value) << 23);
}

template <float (*kConvert)(uint8_t)>
constexpr std::array<float, 256> float8_table() {
  std::array<float, 256> table{};
  for (int i = 0; i < 256; ++i) table[i] = kConvert(static_cast<uint8_t>(i));
  return table;
}

inline constexpr std::array<float, 256> kFloat8E4M3 = float8_table<float8_e4m3_to_float>();
inline constexpr std::array<float, 256> kFloat8E8M0 = float8_table<float8_e8m0_to_float>();

namespace scalar {
#include "simd/scalar.inl"
}  // namespace scalar

#ifdef LOWBIT_X86

LOWBIT_BEGIN_AVX2
namespace avx2 {
#include "simd/avx2.inl"
}  // namespace avx2
LOWBIT_END_ISA

LOWBIT_BEGIN_AVX512
namespace avx512 {
#include "simd/avx512.inl"
#include "simd/avx512_dot.inl"
}  // namespace avx512
LOWBIT_END_ISA

LOWBIT_BEGIN_AVX512_VNNI
namespace avx512_vnni {
#include "simd/avx512.inl"
#include "simd/vnni_dot.inl"
}  // namespace avx512_vnni
LOWBIT_END_ISA

LOWBIT_BEGIN_AVX512_BF16
namespace avx512_bf16 {
#include "simd/avx512.inl"
#include "simd/vnni_dot.inl"
#include "simd/bf16_dot.inl"
}  // namespace avx512_bf16
LOWBIT_END_ISA

LOWBIT_BEGIN_AMX
namespace amx {
#include "simd/avx512.inl"
#include "simd/vnni_dot.inl"
#include "simd/bf16_dot.inl"
#include "simd/amx.inl"
}  // namespace amx
LOWBIT_END_ISA

#endif  // LOWBIT_X86

}  // namespace lowbit::cpu
