// Pairs of bfloat16 in a lane.
LOWBIT_INLINE F32 dot_bf16(F32 sum, I32 a, I32 b) {
  return {
      _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
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
