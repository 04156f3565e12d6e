// Codes in fragments (docs/formats.md) as operands A of mma.m16n8k16: two numbers a register, which
// float16 and bfloat16 hold exactly. A lane has 16 pairs of a half unit; pair q = 8s + 4t + i is
// register i of the fragment of columns 16s and up and of rows 2t, 2t + 1 of the lane's four.
#pragma once

#include "device.cuh"

namespace lowbit::cuda {

// (a & b) | c
LOWBIT_DEVICE uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) { return lop3<0xea>(a, b, c); }

// One number in both halves of a word.
template <ElementType kOperand>
LOWBIT_DEVICE uint32_t twice(float value) {
  const float pair[2] = {value, value};
  return pack_output<kOperand>(pair);
}

template <ElementType kOperand>
LOWBIT_DEVICE uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  if constexpr (kOperand == ElementType::kFloat16) {
    return fma_float16x2(a, b, c);
  } else {
    return fma_bfloat16x2(a, b, c);
  }
}

// ---- integers ----

// Codes less the integer zeros of their rows. A code u becomes the lowest bits of a power of two,
// 2^10 in float16 and 2^7 in bfloat16, from which one fused operation takes power and zero.
template <int kBits, ElementType kOperand>
class IntegerFragments {
  static_assert(kBits == 2 || kBits == 3 || kBits == 4 || kBits == 8);

 public:
  static constexpr int kWords = kBits;  // of a lane and half unit
  // Zeros beyond it would not leave power and zero exact.
  static constexpr float kMostZero =
      kOperand == ElementType::kBFloat16 && kBits < 8 ? 127.0f : 255.0f;

  // Of the lane's four rows; integers from 0 to kMostZero.
  LOWBIT_DEVICE void set_zeros(const float (&zeros)[4]) {
    LOWBIT_UNROLL
    for (int q = 0; q < 8; ++q) {  // those of the other half, s = 1, are the same
      const float zero = zeros[q / 4 * 2 + q % 2];
      if constexpr (kByFloat) {
        offsets_[q] = float_to_bits(add_rn(zero, 0x1p23f));
      } else {
        offsets_[q] = twice<kOperand>(-add_rn(zero, kPower / static_cast<float>(1 << rest(q))));
      }
    }
  }

  LOWBIT_DEVICE void operand(const uint32_t (&words)[kWords], int s, int t,
                             uint32_t (&a)[4]) const {
    LOWBIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int q = 8 * s + 4 * t + i;
      if constexpr (kByFloat) {
        a[i] = float_pair(words, q);
      } else {
        a[i] = fma_halves<kOperand>(raised(words, q), scale(q), offsets_[q % 8]);
      }
    }
  }

 private:
  static constexpr bool kFloat16 = kOperand == ElementType::kFloat16;
  // bfloat16 has no room for 8 bits below its power: those go through float32.
  static constexpr bool kByFloat = kBits == 8 && !kFloat16;
  static constexpr float kPower = kFloat16 ? 1024.0f : 128.0f;
  static constexpr uint32_t kPowers = kFloat16 ? 0x64006400u : 0x43004300u;

  // Of pair q in its plane, the lowest one: word, and the lower of its two bits.
  static constexpr int kWidth = plane_width(kBits);
  static LOWBIT_HOST_DEVICE constexpr int word_of(int q) { return q / (16 / kWidth); }
  static LOWBIT_HOST_DEVICE constexpr int bit_of(int q) { return q % (16 / kWidth) * kWidth; }
  // Bits that a code stays above the lowest: float16 has room for it, so that one shift serves
  // the codes of a whole byte.
  static LOWBIT_HOST_DEVICE constexpr int rest(int q) {
    return kFloat16 && kBits < 8 && kBits != 3 ? bit_of(q) % 8 : 0;
  }

  static LOWBIT_DEVICE uint32_t scale(int q) {
    return kFloat16 ? static_cast<uint32_t>(15 - rest(q)) * 0x04000400u : 0x3f803f80u;
  }

  // Power + code * 2^rest.
  static LOWBIT_DEVICE uint32_t raised(const uint32_t (&words)[kWords], int q) {
    const uint32_t word = words[word_of(q)];
    if constexpr (kBits == 8) {
      return permute_bytes(word, 0x64646464u, q % 2 == 0 ? 0x4240u : 0x4341u);
    } else {
      constexpr uint32_t kMask = ((1u << kWidth) - 1) * 0x00010001u;
      const uint32_t pair = and_or(word >> (bit_of(q) - rest(q)), kMask << rest(q), kPowers);
      if constexpr (kBits != 3) return pair;
      // The third bit, from the plane of single ones.
      return and_or(q < 2 ? words[2] << (2 - q) : words[2] >> (q - 2), 0x00040004u, pair);
    }
  }

  LOWBIT_DEVICE uint32_t float_pair(const uint32_t (&words)[kWords], int q) const {
    const uint32_t word = words[word_of(q)], byte = static_cast<uint32_t>(q % 2);
    const float zero = bits_to_float(offsets_[q % 8]);
    const auto number = [&](uint32_t which) {  // bytes of 2^23 + code
      return sub_rn(bits_to_float(permute_bytes(word, 0x4b000000u, 0x7440u + which)), zero);
    };
    return floats_to_bfloat16x2(number(byte), number(byte + 2));
  }

  uint32_t offsets_[8];
};

// ---- table ----

// The 16 entries of a table, each rounded once. They stay in registers, bytes of the same weight in
// one plane: a permutation looks four codes up among eight entries, a third one takes the upper or
// the lower eight.
template <ElementType kOperand>
class TableFragments {
 public:
  static constexpr int kWords = 4;
  static constexpr float kMostZero = 0.0f;  // the whole zero is a remainder

  LOWBIT_DEVICE explicit TableFragments(const float* table) {
    LOWBIT_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float* four = table + 4 * j;
      const float pairs[4] = {load_constant(four), load_constant(four + 1), load_constant(four + 2),
                              load_constant(four + 3)};
      const uint32_t low = pack_output<kOperand>(pairs), high = pack_output<kOperand>(pairs + 2);
      bytes_[0][j] = permute_bytes(low, high, 0x6420u);
      bytes_[1][j] = permute_bytes(low, high, 0x7531u);
    }
  }

  LOWBIT_DEVICE void set_zeros(const float (&)[4]) {}

  LOWBIT_DEVICE void operand(const uint32_t (&words)[kWords], int s, int t,
                             uint32_t (&a)[4]) const {
    const uint32_t word = words[2 * s + t];
    uint32_t left[2], right[2];  // elements 0 and 1 of two registers
    four_entries(word, left);
    four_entries(word >> 16, right);
    LOWBIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = permute_bytes(left[i / 2], right[i / 2], i % 2 == 0 ? 0x5410u : 0x7632u);
    }
  }

 private:
  // The entries of the codes in the lower half of `word`, two in each of `entries`.
  LOWBIT_DEVICE void four_entries(uint32_t word, uint32_t (&entries)[2]) const {
    const uint32_t index = word & 0x7777u;
    const uint32_t upper = and_or(word >> 1, 0x4444u, 0x3210u);
    uint32_t bytes[2];
    LOWBIT_UNROLL
    for (int b = 0; b < 2; ++b) {
      bytes[b] = permute_bytes(permute_bytes(bytes_[b][0], bytes_[b][1], index),
                               permute_bytes(bytes_[b][2], bytes_[b][3], index), upper);
    }
    entries[0] = permute_bytes(bytes[0], bytes[1], 0x5140u);
    entries[1] = permute_bytes(bytes[0], bytes[1], 0x7362u);
  }

  uint32_t bytes_[2][4];  // lower and upper bytes of the entries, four a word
};

}  // namespace lowbit::cuda
