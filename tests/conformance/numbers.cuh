// Arithmetic with one rounding each, and every conversion between number formats.
#pragma once

#include "case.cuh"

namespace lowbit::cuda::conformance {

// All 2^16 halves, as float16 and as bfloat16.
LOWBIT_KERNEL(256) halves_to_floats(const uint32_t*, uint32_t* out) {
  for (uint32_t bits = block_index() * 256 + thread_index(); bits < 65536; bits += 256 * 16) {
    out[bits] = float_to_bits(float16_to_float(static_cast<uint16_t>(bits)));
    out[65536 + bits] = float_to_bits(bfloat16_to_float(static_cast<uint16_t>(bits)));
  }
}

LOWBIT_KERNEL(256) bytes_to_floats(const uint32_t*, uint32_t* out) {
  const auto bits = static_cast<uint8_t>(thread_index());
  out[bits] = float_to_bits(float8_e4m3_to_float(bits));
  out[256 + bits] = float_to_bits(float8_e8m0_to_float(bits));
  out[512 + bits] = float_to_bits(small_integer_to_float(bits * 32895u));
}

// Pairs of neighbours; the second of a pair in the upper half.
LOWBIT_KERNEL(256) floats_to_halves(const uint32_t* in, uint32_t* out) {
  const uint32_t at = block_index() * 256 + thread_index();
  const float low = bits_to_float(in[at]), high = bits_to_float(in[at ^ 1]);
  out[2 * at] = floats_to_float16x2(low, high);
  out[2 * at + 1] = floats_to_bfloat16x2(low, high);
}

LOWBIT_KERNEL(256) arithmetic(const uint32_t* in, uint32_t* out) {
  const uint32_t at = block_index() * 256 + thread_index();
  const float a = bits_to_float(in[at]), b = bits_to_float(in[at ^ 1]),
              c = bits_to_float(in[at ^ 2]);
  out[3 * at] = float_to_bits(add_rn(mul_rn(a, b), c));
  out[3 * at + 1] = float_to_bits(sub_rn(c, mul_rn(a, b)));
  out[3 * at + 2] = float_to_bits(add_rn(a, b));
}

LOWBIT_KERNEL(256) fused(const uint32_t* in, uint32_t* out) {
  const uint32_t at = block_index() * 256 + thread_index();
  out[at] = float_to_bits(
      fma_rn(bits_to_float(in[at]), bits_to_float(in[at ^ 1]), bits_to_float(in[at ^ 2])));
}

// Two halves of any bits in a word; their exponents are alike where c is a neighbour's product.
LOWBIT_KERNEL(256) packed_halves(const uint32_t* in, uint32_t* out) {
  const uint32_t at = block_index() * 256 + thread_index();
  out[2 * at] = fma_float16x2(in[at], in[at ^ 1], in[at ^ 2]);
  out[2 * at + 1] = fma_bfloat16x2(in[at], in[at ^ 1], in[at ^ 2]);
}

// Random halves, half of them of float16's usual exponents and half of bfloat16's, so that sums and
// products of three are often finite, and often ties.
inline Words pairs_of_halves() {
  RandomWords random("pairs of halves");
  Words words;
  while (words.size() < 1024) words.push_back(random.word());
  while (words.size() < 4096) {
    const bool wide = words.size() % 8 < 4;
    uint32_t word = 0;
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t exponent = wide ? 120 + random.below(15) : 10 + random.below(10);
      const uint32_t kept = random.below(2) ? 0xffffu : 0xfff0u;
      const uint32_t mantissa = random.word() & (wide ? 0x807fu : 0x83ffu) & kept;
      word |= (mantissa | exponent << (wide ? 7 : 10)) << 16 * half;
    }
    words.push_back(word);
  }
  return words;
}

// Floats of any bits, then magnitudes that halves have, ties between two of them, subnormals.
inline Words floats_near_halves() {
  RandomWords random("floats");
  Words words;
  for (const uint32_t bits : {0u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc12345u,
                              0x7f800001u, 0x477fefffu, 0x477ff000u, 0x33000000u, 0x33000001u,
                              0x00000001u, 0x7f7fffffu, 0x7f7f8000u}) {
    words.push_back(bits);
  }
  while (words.size() < 1024) words.push_back(random.word());
  while (words.size() < 4096) {
    const uint32_t kept = random.below(2) ? 0xffffe000u : 0xffff0000u;
    const uint32_t tie = random.below(2) ? (~kept >> 1) + 1 : 0;  // half of the last place
    const uint32_t exponent = 127 - 26 + random.below(44);
    words.push_back((random.word() & 0x807fffffu & kept) | exponent << 23 | tie | random.below(2));
  }
  return words;
}

inline void add_number_cases(Cases& cases) {
  using enum Needs;
  add_case(cases, "halves_to_floats", kSm80, kSameFloats, {16, 256}, {0}, 131072, halves_to_floats);
  add_case(cases, "bytes_to_floats", kSm80, kSameFloats, {1, 256}, {0}, 768, bytes_to_floats);
  add_case(cases, "floats_to_halves", kSm80, kSameBits, {16, 256}, floats_near_halves(), 8192,
           floats_to_halves);
  add_case(cases, "arithmetic", kSm80, kSameFloats, {16, 256}, floats_near_halves(), 12288,
           arithmetic);
  add_case(cases, "fused", kSm80, kSameFloats, {16, 256}, floats_near_halves(), 4096, fused);
  add_case(cases, "packed_halves", kSm80, kSameBits, {16, 256}, pairs_of_halves(), 8192,
           packed_halves);
}

}  // namespace lowbit::cuda::conformance
