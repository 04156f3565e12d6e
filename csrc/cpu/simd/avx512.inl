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
LOWBIT_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
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
// float_to_bfloat16 in every lane.
LOWBIT_INLINE __m512i round_bf16(F32 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i top = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
  const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
}
LOWBIT_INLINE void store_bf16(uint16_t* p, F32 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(round_bf16(a)));
}

LOWBIT_INLINE I32 splat_i32(int32_t value) { return {_mm512_set1_epi32(value)}; }
LOWBIT_INLINE I32 load_i32(const void* p) { return {_mm512_loadu_si512(p)}; }
LOWBIT_INLINE void store_i32(void* p, I32 a) { _mm512_storeu_si512(p, a.v); }
template <int kShift>
LOWBIT_INLINE I32 shift_right(I32 a) {
  return {_mm512_srli_epi32(a.v, kShift)};
}
template <int kShift>
LOWBIT_INLINE I32 shift_left(I32 a) {
  return {_mm512_slli_epi32(a.v, kShift)};
}
template <int kShift>
LOWBIT_INLINE I32 shift_signed(I32 a) {
  return {_mm512_srai_epi32(a.v, kShift)};
}
LOWBIT_INLINE I32 bit_and(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
LOWBIT_INLINE I32 bit_or(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
LOWBIT_INLINE I32 add_i32(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
LOWBIT_INLINE I32 sub_i32(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
LOWBIT_INLINE I32 max_i32(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
LOWBIT_INLINE int32_t sum_i32(I32 a) { return _mm512_reduce_add_epi32(a.v); }
LOWBIT_INLINE int32_t largest_i32(I32 a) { return _mm512_reduce_max_epi32(a.v); }
LOWBIT_INLINE I32 bits_of(F32 a) { return {_mm512_castps_si512(a.v)}; }
LOWBIT_INLINE I32 round_to_i32(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }
LOWBIT_INLINE void store_low_bytes(uint8_t* p, I32 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
struct ByteTable {
  __m512i entries;
};
LOWBIT_INLINE ByteTable load_byte_table(const uint8_t* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LOWBIT_INLINE I32 lookup_bytes(ByteTable table, I32 bytes) {
  return {_mm512_shuffle_epi8(table.entries, bytes.v)};
}
LOWBIT_INLINE void prefetch_far(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
LOWBIT_INLINE I32 dot_halves(I32 sum, I32 a, I32 b) {
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(a.v, b.v))};
}
