// vpmaddubsw saturates at pairs of large codes, so even and odd bytes are multiplied apart as 16
// bits.
inline constexpr int kDotRows = 2;
inline constexpr int kDotVectors = 4;

struct Codes {
  __m512i even, odd;
};
struct Quad {
  __m512i even, odd;
};
LOWBIT_INLINE Codes dot_codes(I32 bytes) {
  return {_mm512_and_si512(bytes.v, _mm512_set1_epi16(255)), _mm512_srli_epi16(bytes.v, 8)};
}
LOWBIT_INLINE Quad dot_quad(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  const __m512i quad = _mm512_set1_epi32(word);
  return {_mm512_srai_epi16(_mm512_slli_epi16(quad, 8), 8), _mm512_srai_epi16(quad, 8)};
}
LOWBIT_INLINE I32 dot(I32 sum, Codes codes, Quad quad) {
  const __m512i even = _mm512_add_epi32(sum.v, _mm512_madd_epi16(codes.even, quad.even));
  return {_mm512_add_epi32(even, _mm512_madd_epi16(codes.odd, quad.odd))};
}
