// Vectors of 16 fp32 or int32 lanes, once per instruction set, under the same names:
//   lowbit::cpu::scalar   plain loops; the specification, and all there is off x86
//   lowbit::cpu::avx2     AVX2 + FMA + F16C, two registers a vector
//   lowbit::cpu::avx512   AVX-512 F, BW, VL, DQ
// Sixteen lanes everywhere and a fused fma() everywhere make a kernel's results equal to the last
// bit on all of them (but for the payload of a NaN). This file holds every intrinsic of the
// project.
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
#define LOWBIT_BEGIN_AVX512 LOWBIT_BEGIN_ISA("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")

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

// ======================================= scalar ===============================================
namespace scalar {

// How many F32 fit into the registers.
inline constexpr int kRegisters = 4;

struct F32 {
  float lane[kLanes];
};
struct I32 {
  uint32_t lane[kLanes];
};

template <typename Vector = F32, typename Function>
LOWBIT_INLINE Vector each_lane(Function function) {
  Vector result;
  for (int i = 0; i < kLanes; ++i) result.lane[i] = function(i);
  return result;
}

LOWBIT_INLINE F32 splat(float value) {
  return each_lane([=](int) { return value; });
}
LOWBIT_INLINE F32 load(const float* p) {
  return each_lane([=](int i) { return p[i]; });
}
// A load for several uses. Compilers like to fold a plain load into every operation that uses it,
// which makes the load ports the limit of a register tile (1.3 times slower on AVX-512).
LOWBIT_INLINE F32 load_once(const float* p) { return load(p); }
LOWBIT_INLINE void store(float* p, F32 a) { std::memcpy(p, a.lane, sizeof a.lane); }
LOWBIT_INLINE F32 add(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] + b.lane[i]; });
}
LOWBIT_INLINE F32 sub(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] - b.lane[i]; });
}
LOWBIT_INLINE F32 mul(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] * b.lane[i]; });
}
// a * b + c, rounded once.
LOWBIT_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return each_lane([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
// Sum of the lanes: halves are added until one lane is left.
LOWBIT_INLINE float sum(F32 a) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
  }
  return a.lane[0];
}
LOWBIT_INLINE F32 to_float(I32 a) {
  return each_lane([&](int i) { return static_cast<float>(a.lane[i]); });
}
// table[index % 16] in every lane.
LOWBIT_INLINE F32 lookup(F32 table, I32 index) {
  return each_lane([&](int i) { return table.lane[index.lane[i] % kLanes]; });
}

// Sixteen consecutive fields of kWidth bits, read from 2 * kWidth bytes. Bits above a lane's field
// are undefined until mask_fields clears them.
template <int kWidth>
LOWBIT_INLINE I32 load_fields(const uint8_t* p) {
  return each_lane<I32>(
      [=](int i) { return static_cast<uint32_t>(p[i * kWidth / 8]) >> (i * kWidth % 8); });
}
template <int kWidth>
LOWBIT_INLINE I32 mask_fields(I32 a) {
  return each_lane<I32>([&](int i) { return a.lane[i] & ((1u << kWidth) - 1); });
}
// low | high << kShift
template <int kShift>
LOWBIT_INLINE I32 join_fields(I32 low, I32 high) {
  return each_lane<I32>([&](int i) { return low.lane[i] | high.lane[i] << kShift; });
}

LOWBIT_INLINE F32 load_u8(const uint8_t* p) {
  return each_lane([=](int i) { return static_cast<float>(p[i]); });
}
LOWBIT_INLINE F32 load_f16(const uint16_t* p) {
  return each_lane([=](int i) { return float16_to_float(p[i]); });
}
LOWBIT_INLINE F32 load_bf16(const uint16_t* p) {
  return each_lane([=](int i) { return bfloat16_to_float(p[i]); });
}
LOWBIT_INLINE void store_f16(uint16_t* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_float16(a.lane[i]);
}
LOWBIT_INLINE void store_bf16(uint16_t* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_bfloat16(a.lane[i]);
}

}  // namespace scalar

#ifdef LOWBIT_X86

// ======================================== avx2 ================================================
LOWBIT_BEGIN_AVX2
namespace avx2 {

inline constexpr int kRegisters = 8;

struct F32 {
  __m256 lo, hi;
};
struct I32 {
  __m256i lo, hi;
};

LOWBIT_INLINE F32 splat(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
LOWBIT_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LOWBIT_INLINE F32 load_once(const float* p) {
  F32 a = load(p);
  asm("" : "+x"(a.lo), "+x"(a.hi));
  return a;
}
LOWBIT_INLINE void store(float* p, F32 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
LOWBIT_INLINE F32 add(F32 a, F32 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
LOWBIT_INLINE F32 sub(F32 a, F32 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
LOWBIT_INLINE F32 mul(F32 a, F32 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
LOWBIT_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
LOWBIT_INLINE float sum(F32 a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LOWBIT_INLINE F32 to_float(I32 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

// Both halves are looked up by the low three index bits; bit 3, moved to the sign, selects.
LOWBIT_INLINE __m256 lookup_half(F32 table, __m256i index) {
  const __m256 low = _mm256_permutevar8x32_ps(table.lo, index);
  const __m256 high = _mm256_permutevar8x32_ps(table.hi, index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
LOWBIT_INLINE F32 lookup(F32 table, I32 index) {
  return {lookup_half(table, index.lo), lookup_half(table, index.hi)};
}

LOWBIT_INLINE __m256i splat_word(const uint8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}
template <int kWidth>
LOWBIT_INLINE I32 load_fields(const uint8_t* p) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  if constexpr (kWidth == 8) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  } else if constexpr (kWidth == 4) {
    const __m256i shift = _mm256_slli_epi32(lane, 2);
    return {_mm256_srlv_epi32(splat_word(p), shift), _mm256_srlv_epi32(splat_word(p + 4), shift)};
  } else if constexpr (kWidth == 2) {
    const __m256i shift = _mm256_slli_epi32(lane, 1);
    const __m256i word = splat_word(p);
    return {_mm256_srlv_epi32(word, shift),
            _mm256_srlv_epi32(word, _mm256_add_epi32(shift, _mm256_set1_epi32(16)))};
  } else {
    const __m256i word = _mm256_set1_epi32(p[0] | p[1] << 8);
    return {_mm256_srlv_epi32(word, lane),
            _mm256_srlv_epi32(word, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))};
  }
}
template <int kWidth>
LOWBIT_INLINE I32 mask_fields(I32 a) {
  const __m256i mask = _mm256_set1_epi32((1 << kWidth) - 1);
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
template <int kShift>
LOWBIT_INLINE I32 join_fields(I32 low, I32 high) {
  return {_mm256_or_si256(low.lo, _mm256_slli_epi32(high.lo, kShift)),
          _mm256_or_si256(low.hi, _mm256_slli_epi32(high.hi, kShift))};
}

LOWBIT_INLINE F32 load_u8(const uint8_t* p) { return to_float(load_fields<8>(p)); }
LOWBIT_INLINE __m128i load_16_bytes(const uint16_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
LOWBIT_INLINE F32 load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_16_bytes(p)), _mm256_cvtph_ps(load_16_bytes(p + 8))};
}
LOWBIT_INLINE __m256 widen_bf16(__m128i values) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(values), 16));
}
LOWBIT_INLINE F32 load_bf16(const uint16_t* p) {
  return {widen_bf16(load_16_bytes(p)), widen_bf16(load_16_bytes(p + 8))};
}
LOWBIT_INLINE void store_f16(uint16_t* p, F32 a) {
  constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kNearestEven));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kNearestEven));
}
// float_to_bfloat16 in every lane, results in the low halves.
LOWBIT_INLINE __m256i narrow_bf16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i top = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}
LOWBIT_INLINE void store_bf16(uint16_t* p, F32 a) {
  const __m256i packed = _mm256_packus_epi32(narrow_bf16(a.lo), narrow_bf16(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

}  // namespace avx2
LOWBIT_END_ISA

// ======================================= avx512 ===============================================
LOWBIT_BEGIN_AVX512
namespace avx512 {

inline constexpr int kRegisters = 32;

struct F32 {
  __m512 v;
};
struct I32 {
  __m512i v;
};

LOWBIT_INLINE F32 splat(float value) { return {_mm512_set1_ps(value)}; }
LOWBIT_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
LOWBIT_INLINE F32 load_once(const float* p) {
  __m512 v = _mm512_loadu_ps(p);
  asm("" : "+v"(v));
  return {v};
}
LOWBIT_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
LOWBIT_INLINE F32 add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
LOWBIT_INLINE F32 sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
LOWBIT_INLINE F32 mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
LOWBIT_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
LOWBIT_INLINE float sum(F32 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LOWBIT_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
LOWBIT_INLINE F32 lookup(F32 table, I32 index) { return {_mm512_permutexvar_ps(index.v, table.v)}; }

template <int kWidth>
LOWBIT_INLINE I32 load_fields(const uint8_t* p) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  if constexpr (kWidth == 8) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  } else if constexpr (kWidth == 4) {
    const __m512i words = _mm512_castsi128_si512(_mm_loadu_si64(p));
    const __m512i spread = _mm512_permutexvar_epi32(_mm512_srli_epi32(lane, 3), words);
    // A shift count of (4 * lane) % 32 needs no mask when written out.
    const __m512i shift =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    return {_mm512_srlv_epi32(spread, shift)};
  } else if constexpr (kWidth == 2) {
    int32_t word;
    std::memcpy(&word, p, sizeof word);
    return {_mm512_srlv_epi32(_mm512_set1_epi32(word), _mm512_slli_epi32(lane, 1))};
  } else {
    return {_mm512_srlv_epi32(_mm512_set1_epi32(p[0] | p[1] << 8), lane)};
  }
}
template <int kWidth>
LOWBIT_INLINE I32 mask_fields(I32 a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi32((1 << kWidth) - 1))};
}
template <int kShift>
LOWBIT_INLINE I32 join_fields(I32 low, I32 high) {
  return {_mm512_or_si512(low.v, _mm512_slli_epi32(high.v, kShift))};
}

LOWBIT_INLINE F32 load_u8(const uint8_t* p) { return to_float(load_fields<8>(p)); }
LOWBIT_INLINE __m256i load_32_bytes(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
LOWBIT_INLINE F32 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_32_bytes(p))}; }
LOWBIT_INLINE F32 load_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(load_32_bytes(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
LOWBIT_INLINE void store_f16(uint16_t* p, F32 a) {
  constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, kNearestEven));
}
LOWBIT_INLINE void store_bf16(uint16_t* p, F32 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i top = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
  const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
}

}  // namespace avx512
LOWBIT_END_ISA

#endif  // LOWBIT_X86

}  // namespace lowbit::cpu
