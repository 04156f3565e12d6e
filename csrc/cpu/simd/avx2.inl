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
LOWBIT_INLINE F32 min(F32 a, F32 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
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

LOWBIT_INLINE I32 splat_i32(int32_t value) {
  return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}
LOWBIT_INLINE I32 load_i32(const void* p) {
  const auto* half = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(half), _mm256_loadu_si256(half + 1)};
}
LOWBIT_INLINE void store_i32(void* p, I32 a) {
  auto* half = static_cast<__m256i*>(p);
  _mm256_storeu_si256(half, a.lo);
  _mm256_storeu_si256(half + 1, a.hi);
}
template <int kShift>
LOWBIT_INLINE I32 shift_right(I32 a) {
  return {_mm256_srli_epi32(a.lo, kShift), _mm256_srli_epi32(a.hi, kShift)};
}
template <int kShift>
LOWBIT_INLINE I32 shift_left(I32 a) {
  return {_mm256_slli_epi32(a.lo, kShift), _mm256_slli_epi32(a.hi, kShift)};
}
template <int kShift>
LOWBIT_INLINE I32 shift_signed(I32 a) {
  return {_mm256_srai_epi32(a.lo, kShift), _mm256_srai_epi32(a.hi, kShift)};
}
LOWBIT_INLINE I32 bit_and(I32 a, I32 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
LOWBIT_INLINE I32 bit_or(I32 a, I32 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
LOWBIT_INLINE I32 add_i32(I32 a, I32 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
LOWBIT_INLINE I32 sub_i32(I32 a, I32 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
LOWBIT_INLINE I32 max_i32(I32 a, I32 b) {
  return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
// f over all eight lanes.
template <typename F>
LOWBIT_INLINE int32_t fold_lanes(__m256i eight, const F& f) {
  __m128i four = f(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = f(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(f(four, _mm_shuffle_epi32(four, 0xb1)));
}
LOWBIT_INLINE int32_t sum_i32(I32 a) {
  const auto add = [](__m128i x, __m128i y) { return _mm_add_epi32(x, y); };
  return fold_lanes(_mm256_add_epi32(a.lo, a.hi), add);
}
LOWBIT_INLINE int32_t largest_i32(I32 a) {
  const auto larger = [](__m128i x, __m128i y) { return _mm_max_epi32(x, y); };
  return fold_lanes(_mm256_max_epi32(a.lo, a.hi), larger);
}
LOWBIT_INLINE I32 bits_of(F32 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
LOWBIT_INLINE I32 round_to_i32(F32 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
LOWBIT_INLINE void store_low_bytes(uint8_t* p, I32 a) {
  const __m256i low = _mm256_set1_epi32(255);
  const __m256i words =
      _mm256_packus_epi32(_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
struct ByteTable {
  __m256i entries;
};
LOWBIT_INLINE ByteTable load_byte_table(const uint8_t* p) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LOWBIT_INLINE I32 lookup_bytes(ByteTable table, I32 bytes) {
  return {_mm256_shuffle_epi8(table.entries, bytes.lo),
          _mm256_shuffle_epi8(table.entries, bytes.hi)};
}
LOWBIT_INLINE void prefetch_far(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}

// vpmaddubsw saturates at pairs of large codes, so even and odd bytes are multiplied apart as 16
// bits.
inline constexpr int kDotRows = 2;
inline constexpr int kDotVectors = 1;

struct Codes {
  I32 even, odd;
};
struct Quad {
  __m256i even, odd;
};
LOWBIT_INLINE Codes dot_codes(I32 bytes) {
  const __m256i even = _mm256_set1_epi16(255);
  return {{_mm256_and_si256(bytes.lo, even), _mm256_and_si256(bytes.hi, even)},
          {_mm256_srli_epi16(bytes.lo, 8), _mm256_srli_epi16(bytes.hi, 8)}};
}
LOWBIT_INLINE Quad dot_quad(const int8_t* p) {
  const __m256i quad = splat_word(reinterpret_cast<const uint8_t*>(p));
  return {_mm256_srai_epi16(_mm256_slli_epi16(quad, 8), 8), _mm256_srai_epi16(quad, 8)};
}
LOWBIT_INLINE __m256i dot_half(__m256i sum, __m256i even, __m256i odd, const Quad& quad) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, quad.even));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(odd, quad.odd));
}
LOWBIT_INLINE I32 dot(I32 sum, Codes codes, Quad quad) {
  return {dot_half(sum.lo, codes.even.lo, codes.odd.lo, quad),
          dot_half(sum.hi, codes.even.hi, codes.odd.hi, quad)};
}
LOWBIT_INLINE I32 dot_halves(I32 sum, I32 a, I32 b) {
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, b.lo)),
          _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, b.hi))};
}
