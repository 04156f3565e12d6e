// Random weights for check programs without torch: every buffer is exactly as long as the format
// says, so AddressSanitizer sees each access beyond it. Values are compared with the rule written a
// second time, bit by bit.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "check_program.h"
#include "weight_format.h"

namespace lowbit::weight_case {

using enum ElementType;

using check_program::check_seeds;
using check_program::Random;
using check_program::wrong_value;

// Powers of two, which every element type holds exactly: 2^exponent as stored.
struct Powers {
  ElementType type;
  std::vector<int> exponents;
  std::vector<float> numbers;
  std::unique_ptr<uint8_t[]> memory;

  Powers(ElementType t, int64_t count, Random& random) : type(t) {
    const int low = t == kUInt8 ? 0 : -3;
    for (int64_t i = 0; i < count; ++i)
      exponents.push_back(static_cast<int>(random.between(low, 3)));
    numbers.resize(static_cast<size_t>(count));
    memory.reset(new uint8_t[static_cast<size_t>(count * bytes())]);
    for (int64_t i = 0; i < count; ++i) write(i, exponents[static_cast<size_t>(i)]);
  }

  int64_t bytes() const {
    return type == kFloat32 ? 4 : type == kFloat16 || type == kBFloat16 ? 2 : 1;
  }

  void write(int64_t i, int exponent) {
    const uint32_t bits = type == kFloat32      ? (127u + exponent) << 23
                          : type == kBFloat16   ? (127u + exponent) << 7
                          : type == kFloat16    ? (15u + exponent) << 10
                          : type == kFloat8E4M3 ? (7u + exponent) << 3
                          : type == kFloat8E8M0 ? 127u + exponent
                                                : 1u << exponent;
    std::memcpy(memory.get() + i * bytes(), &bits, static_cast<size_t>(bytes()));
    numbers[static_cast<size_t>(i)] = std::ldexp(1.0f, exponent);
  }

  void set(int64_t i, int exponent) {
    exponents[static_cast<size_t>(i)] = exponent;
    write(i, exponent);
  }

  // An integer that is no power of two, as a byte holds it.
  void set_byte(int64_t i, uint8_t number) {
    memory[static_cast<size_t>(i)] = number;
    numbers[static_cast<size_t>(i)] = number;
  }

  float value(int64_t i) const { return numbers[static_cast<size_t>(i)]; }
};

// The code of column j, from the widths of the planes as docs/formats.md lists them.
inline uint32_t expected_code(const uint32_t* words, int bits, int64_t k, int64_t j) {
  static const std::vector<std::vector<int>> kWidths = {{1},    {2},    {2, 1},    {4},
                                                        {4, 1}, {4, 2}, {4, 2, 1}, {8}};
  uint32_t code = 0;
  int place = 0;
  for (int width : kWidths[static_cast<size_t>(bits - 1)]) {
    for (int b = 0; b < width; ++b, ++place) {
      const int64_t bit = j * width + b;
      code |= (words[bit / 32] >> bit % 32 & 1u) << place;
    }
    words += (k * width + 31) / 32;
  }
  return code;
}

inline uint32_t expected_bits(ElementType type, float w) {
  uint32_t bits;
  std::memcpy(&bits, &w, 4);
  if (type == kFloat32) return bits;
  if (type == kFloat16) {
    const auto half = static_cast<_Float16>(w);
    uint16_t stored;
    std::memcpy(&stored, &half, 2);
    return stored;
  }
  const uint32_t rest = bits & 0xffffu;
  const bool up = rest > 0x8000u || (rest == 0x8000u && (bits & 0x10000u));
  return (bits >> 16) + up;
}

inline float value_of_bits(ElementType type, uint32_t bits) {
  if (type == kFloat16) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return static_cast<float>(half);
  }
  if (type == kBFloat16) bits <<= 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float rounded(ElementType type, float value) {
  return value_of_bits(type, expected_bits(type, value));
}

inline ElementType random_float_type(Random& random) {
  constexpr ElementType kTypes[] = {kFloat32, kFloat16, kBFloat16};
  return kTypes[random.below(3)];
}

// Numbers as a float type holds them, in memory as long as they are.
struct Stored {
  ElementType type;
  std::vector<float> numbers;
  std::unique_ptr<uint8_t[]> memory;

  template <typename Draw>
  Stored(ElementType t, int64_t count, const Draw& draw) : type(t) {
    const int64_t bytes = type == kFloat32 ? 4 : 2;
    memory.reset(new uint8_t[static_cast<size_t>(count * bytes)]);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = expected_bits(type, draw());
      numbers.push_back(value_of_bits(type, bits));
      std::memcpy(memory.get() + i * bytes, &bits, static_cast<size_t>(bytes));
    }
  }
  float value(int64_t i) const { return numbers[static_cast<size_t>(i)]; }
};

struct Most {
  int64_t rows = 7, columns = 300;
  bool crowds = true;  // now and then more runs than the model's largest grid has threads
};

// A random weight and the memory it lives in.
struct Weight {
  WeightView view{};
  std::unique_ptr<uint32_t[]> qweight;
  std::unique_ptr<Powers> scales, zeros;
  std::unique_ptr<float[]> table, s0;

  Weight(int bits, Random& random, Most most = {}) {
    choose_format(bits, random, most);
    make_codes(random);
    make_scales(random);
    make_table_and_s0(random);
  }

  void choose_format(int bits, Random& random, Most most) {
    WeightFormat& f = view.format;
    f.bits = bits;
    const bool many = random.below(256) == 0 && most.crowds;  // so that threads loop
    f.n = many ? random.between(5000, 6000) : random.between(1, most.rows);
    f.k = random.between(many ? 20 : 1, many || random.below(2) ? 40 : most.columns);
    f.block_n = random.between(1, f.n);
    f.block_k = random.between(1, random.below(2) ? f.k : f.k + 100);
    f.zero_kind = static_cast<ZeroKind>(random.below(4));
  }

  void make_codes(Random& random) {
    const int64_t row = row_words(view.format.k, view.format.bits);
    view.qweight_stride = row + random.below(3);
    const int64_t words = (view.format.n - 1) * view.qweight_stride + row;
    qweight.reset(new uint32_t[static_cast<size_t>(words)]);
    for (int64_t i = 0; i < words; ++i) qweight[i] = static_cast<uint32_t>(random.engine());
    view.qweight = reinterpret_cast<const int32_t*>(qweight.get());
  }

  void make_scales(Random& random) {
    constexpr ElementType kScales[] = {kFloat32, kFloat16, kBFloat16, kFloat8E4M3, kFloat8E8M0};
    constexpr ElementType kZeros[] = {kUInt8, kFloat16, kBFloat16, kFloat32};
    const WeightFormat& f = view.format;
    const int64_t columns = (f.k + f.block_k - 1) / f.block_k;
    const int64_t rows = (f.n + f.block_n - 1) / f.block_n;
    view.scales_stride = view.zeros_stride = columns + random.below(3);
    const int64_t cells = (rows - 1) * view.scales_stride + columns;
    scales = std::make_unique<Powers>(kScales[random.below(5)], cells, random);
    view.scales = scales->memory.get();
    view.scales_type = scales->type;
    if (f.zero_kind == ZeroKind::kNone || f.zero_kind == ZeroKind::kMidpoint) return;
    zeros = std::make_unique<Powers>(kZeros[random.below(4)], cells, random);
    view.zeros = zeros->memory.get();
    view.zeros_type = zeros->type;
  }

  void make_table_and_s0(Random& random) {
    const WeightFormat& f = view.format;
    if (f.bits <= kMaxTableBits && random.below(2)) {
      table.reset(new float[size_t{1} << f.bits]);
      for (int i = 0; i < 1 << f.bits; ++i) table[i] = random.real() - 1.0f;
    }
    view.s0_stride = random.below(2);
    if (random.below(3)) {
      const int64_t count = view.s0_stride ? f.n : 1;
      s0.reset(new float[static_cast<size_t>(count)]);
      for (int64_t i = 0; i < count; ++i) s0[i] = random.real();
    }
    view.table = table.get();
    view.s0 = s0.get();
  }

  // The value rule, element by element.
  float expected(int64_t row, int64_t column) const {
    const WeightFormat& f = view.format;
    const int64_t cell = row / f.block_n * view.scales_stride + column / f.block_k;
    const uint32_t* words = qweight.get() + row * view.qweight_stride;
    const uint32_t code = expected_code(words, f.bits, f.k, column);
    const float t = table ? table[code] : static_cast<float>(code);
    const float s = s0 ? scales->value(cell) * s0[row * view.s0_stride] : scales->value(cell);
    if (f.zero_kind == ZeroKind::kNone) return t * s;
    if (f.zero_kind == ZeroKind::kMidpoint) return (t - std::ldexp(1.0f, f.bits - 1)) * s;
    if (f.zero_kind == ZeroKind::kCode) return (t - zeros->value(cell)) * s;
    const float product = t * s;
    return product + zeros->value(cell);
  }
};

inline void compare(const Weight& weight, ElementType type, const uint8_t* out) {
  const WeightFormat& f = weight.view.format;
  const int bytes = type == kFloat32 ? 4 : 2;
  for (int64_t i = 0; i < f.n * f.k; ++i) {
    uint32_t got = 0;
    std::memcpy(&got, out + i * bytes, static_cast<size_t>(bytes));
    const uint32_t want = expected_bits(type, weight.expected(i / f.k, i % f.k));
    if (got == want) continue;
    wrong_value("%d bits, n %ld, k %ld, row %ld, column %ld: got %x, expected %x", f.bits, f.n, f.k,
                i / f.k, i % f.k, got, want);
  }
}

}  // namespace lowbit::weight_case
