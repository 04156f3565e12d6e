// Random weights through the CPU texts of the mode bf16, in dot products and in tiles. Numbers
// round to small multiples of 1/8: sums of their products are exact in any order. Arguments: first
// seed, number of seeds.
#include "linear_case.h"

namespace lowbit::cpu::plain {
#include "cpu/linear_bf16_amx.inl"
}

using namespace lowbit;
using namespace lowbit::linear_case;
namespace text = lowbit::cpu::plain;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// An integer when rounded to bfloat16, and seldom before.
float nearly_integer(int64_t most, Random& random) {
  const float noise = 0x1p-12f * static_cast<float>(random.between(-1, 1));
  return static_cast<float>(random.between(-most, most)) * (1.0f + noise);
}

void choose_table(const Weight& weight, Random& random) {
  if (!weight.table) return;
  const int entries = 1 << weight.view.format.bits;
  for (int i = 0; i < entries; ++i) {
    weight.table[static_cast<size_t>(i)] = nearly_integer(16, random) / 8.0f;
  }
  if (random.below(4)) return;
  weight.table[static_cast<size_t>(random.below(entries))] = random.below(2) ? kInfinity : kNan;
}

// Chunks of 128 columns; zeros are multiplied apart from the numbers.
float expected_sum(const WeightFormat& f, const WeightRow& w, const float* x) {
  float sum = 0.0f;
  for_each_chunk(f, 128, [&](size_t begin, size_t end) {
    float products = 0.0f, total = 0.0f;
    for (size_t k = begin; k < end; ++k) {
      const float number = rounded(kBFloat16, x[k]);
      products += number * rounded(kBFloat16, w.numbers[k]);
      total += number;
    }
    const float scale = w.scales[begin], zero = w.zeros[begin];
    sum = std::fma(products, scale, sum);
    if (f.zero_kind == ZeroKind::kNone) return;
    sum = std::fma(total, f.zero_kind == ZeroKind::kValue ? zero : scale * -zero, sum);
  });
  return sum;
}

void check_case(int bits, bool tiles, Random& random) {
  const Weight weight(bits, random, kMost);
  choose_table(weight, random);
  const bool infinite = random.below(4) == 0;
  LinearCase c(weight, LinearMode::kBFloat16, random, [&] {
    return infinite && random.below(100) == 0 ? kInfinity : nearly_integer(8, random);
  });
  if (tiles) {
    c.run({cpu::kMaxChunkColumns, 32, 2, cpu::kTileRows, text::pack_rows_bf16_tiles,
           text::multiply_bf16_tiles});
  } else {
    c.run({cpu::kMaxChunkColumns, 32, 2, 1, text::pack_rows_bf16, text::multiply_bf16});
  }
  c.compare([&](const WeightRow& row, const float* x) {
    return expected_sum(weight.view.format, row, x);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) {
      for (bool tiles : {false, true}) check_case(bits, tiles, random);
    }
  });
}
