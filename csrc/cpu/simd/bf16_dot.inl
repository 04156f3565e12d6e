// Pairs of bfloat16 in a lane.
LOWBIT_INLINE F32 dot_bf16(F32 sum, I32 a, I32 b) {
  return {
      _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}
// Stores bfloat16, columns 0 1 2 3 of every quad as 0 2 1 3; returns what they round to.
LOWBIT_INLINE F32 store_pairs(uint16_t* p, F32 a) {
  constexpr int kOrder = 0xd8;  // 0 2 1 3
  const __m512i lanes = round_bf16(a);
  const __m256i low_quads = _mm256_shufflelo_epi16(_mm512_cvtepi32_epi16(lanes), kOrder);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_shufflehi_epi16(low_quads, kOrder));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(lanes, 16))};
}
// A table of 32 bfloat16, and the entry of the low five bits of every 16-bit word.
struct WordTable {
  __m512i entries;
};
LOWBIT_INLINE WordTable load_word_table(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
LOWBIT_INLINE I32 lookup_words(WordTable table, I32 words) {
  return {_mm512_permutexvar_epi16(words.v, table.entries)};
}
// Numbers of at most 8 bits and a sign in 16-bit words, exactly as bfloat16.
LOWBIT_INLINE I32 words_to_bf16(I32 words) {
  const __m512 low = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(words.v, 16), 16));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_srai_epi32(words.v, 16));
  const __m512i top = _mm512_and_si512(_mm512_castps_si512(high), _mm512_set1_epi32(-65536));
  return {_mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16), top)};
}
