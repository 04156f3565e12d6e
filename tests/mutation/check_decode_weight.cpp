// Random weights through the CPU texts that decode, at the level of plain loops. Arguments: first
// seed, number of seeds.
#include "cpu/simd.h"
#include "dequantize_weight.h"
#include "weight_case.h"

namespace lowbit::cpu::scalar {
#include "cpu/dequantize_weight.inl"
}

using namespace lowbit;
using namespace lowbit::weight_case;
namespace text = lowbit::cpu::scalar;

namespace {

constexpr Most kMost{.rows = 7, .columns = 1400};  // chunks have 512 columns

// Tasks in two parts, into memory as long as the result.
void check_dequantize(int bits, ElementType type, Random& random) {
  const Weight weight(bits, random, kMost);
  const WeightFormat& f = weight.view.format;
  const auto bytes = static_cast<size_t>(f.n * f.k * (type == kFloat32 ? 4 : 2));
  const std::unique_ptr<uint8_t[]> out(new uint8_t[bytes]);
  const DequantizeWeightParams p{weight.view, out.get(), type};
  const int64_t tasks = f.n * text::dequantize_chunks(f), middle = random.below(tasks + 1);
  std::memset(out.get(), 0x55, bytes);
  text::dequantize_tasks(p, middle, tasks);
  text::dequantize_tasks(p, 0, middle);
  compare(weight, type, out.get());
}

// Part of a row: its values, and zeros behind them up to a multiple of 16.
void check_decode(int bits, Random& random) {
  const Weight weight(bits, random, kMost);
  const WeightFormat& f = weight.view.format;
  const int64_t row = random.below(f.n), k0 = 16 * random.below((f.k + 15) / 16);
  const int64_t count = random.between(1, std::min(f.k - k0, text::kChunk));
  const int64_t filled = (count + 15) / 16 * 16;
  const std::unique_ptr<float[]> out(new float[static_cast<size_t>(filled)]);
  std::fill(out.get(), out.get() + filled, 7.0f);
  text::decode_row_for(bits)(weight.view, row, k0, count, out.get());
  for (int64_t i = 0; i < filled; ++i) {
    const float want = i < count ? weight.expected(row, k0 + i) : 0.0f;
    if (std::memcmp(&out[i], &want, 4) == 0) continue;
    std::printf("wrong value: %d bits, k %ld, columns %ld + %ld: got %g, expected %g\n", bits, f.k,
                k0, i, static_cast<double>(out[i]), static_cast<double>(want));
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const uint64_t count = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) {
      for (ElementType type : {kFloat32, kFloat16, kBFloat16}) {
        check_dequantize(bits, type, random);
        check_decode(bits, random);
      }
    }
  }
  std::printf("%lu seeds ok\n", count);
}
