// Random operands of matrix products.
#pragma once

#include "case.cuh"

namespace lowbit::cuda::conformance {

enum class Element { kFloat16, kBFloat16, kFloat8E4M3, kInt8 };

constexpr const char* name_of(Element type) {
  constexpr const char* kNames[] = {"float16", "bfloat16", "float8_e4m3", "int8"};
  return kNames[static_cast<int>(type)];
}

constexpr uint32_t bytes_of(Element type) {
  return type == Element::kFloat16 || type == Element::kBFloat16 ? 2 : 1;
}

// -4 to 4 in each format: sums of so few products of them are exact in any order and in any
// intermediate precision of ten bits or more.
inline uint32_t small_integer(Element type, RandomWords& random) {
  constexpr uint16_t kFloat16[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400};
  constexpr uint16_t kBFloat16[] = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080};
  constexpr uint8_t kFloat8[] = {0x00, 0x38, 0x40, 0x44, 0x48};
  const uint32_t magnitude = random.below(5), negative = random.below(2);
  switch (type) {
    case Element::kFloat16:
      return kFloat16[magnitude] | negative << 15;
    case Element::kBFloat16:
      return kBFloat16[magnitude] | negative << 15;
    case Element::kFloat8E4M3:
      return kFloat8[magnitude] | negative << 7;
    case Element::kInt8:
      break;
  }
  return random.word() & 0xff;  // integers are exact in any case
}

// Any mantissa, magnitudes from 2^-3 to below 2: kProductBound bounds a product.
inline constexpr double kProductBound = 4.0;
inline uint32_t any_fraction(Element type, RandomWords& random) {
  const uint32_t sign = random.below(2), exponent = random.below(4), mantissa = random.word();
  switch (type) {
    case Element::kFloat16:
      return sign << 15 | (12 + exponent) << 10 | (mantissa & 0x3ff);
    case Element::kBFloat16:
      return sign << 15 | (124 + exponent) << 7 | (mantissa & 0x7f);
    case Element::kFloat8E4M3:
      return sign << 7 | (4 + exponent) << 3 | (mantissa & 7);
    case Element::kInt8:
      break;
  }
  return mantissa & 0xff;
}

using Draw = uint32_t (*)(Element, RandomWords&);

// Words full of elements.
inline Words random_elements(const std::string& name, Element type, size_t words, Draw draw) {
  RandomWords random(name);
  Words result(words);
  for (uint32_t& word : result) {
    for (uint32_t bit = 0; bit < 32; bit += 8 * bytes_of(type)) word |= draw(type, random) << bit;
  }
  return result;
}

// What a sum of `terms` products of any_fraction() may be off on tensor cores: terms are aligned to
// the largest and cut at some bit of it, and the sum is rounded once more. 16-bit operands keep
// at least the 23 bits of fp32 (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"), fp8
// operands 13 (DeepSeek-V3 technical report 2024, section 3.5.2). One bit of it for each term.
inline double tolerance(Element type, uint32_t terms, double largest_sum) {
  const double cut = type == Element::kFloat8E4M3 ? 0x1p-13 : 0x1p-23;
  return (terms + 1) * cut * (largest_sum > kProductBound ? largest_sum : kProductBound);
}

}  // namespace lowbit::cuda::conformance
