inline constexpr int kDotRows = 3;
inline constexpr int kDotVectors = 4;

struct Codes {
  __m512i bytes;
};
struct Quad {
  __m512i bytes;
};
LOWBIT_INLINE Codes dot_codes(I32 bytes) {
  asm("" : "+v"(bytes.v));  // one load for all x rows, as load_once
  return {bytes.v};
}
LOWBIT_INLINE Quad dot_quad(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return {_mm512_set1_epi32(word)};
}
// GCC 12 spills the sums of a register tile around the intrinsic: half the speed.
LOWBIT_INLINE I32 dot(I32 sum, Codes codes, Quad quad) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(codes.bytes), "v"(quad.bytes));
  return sum;
}
