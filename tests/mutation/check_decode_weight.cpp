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

void require(bool ok, const char* what, int64_t index) {
  if (!ok) wrong_value("%s %ld", what, index);
}

// Elements to fp32 and back: neither side is touched beyond what the text says.
void check_runs(ElementType from, ElementType to, Random& random) {
  const int64_t count = random.below(70), filled = (count + 15) / 16 * 16;
  const Powers source(from, count, random);
  const std::unique_ptr<float[]> values(new float[static_cast<size_t>(filled)]);
  text::load_elements(from, source.memory.get(), 0, count, values.get());
  for (int64_t i = 0; i < filled; ++i) {
    require(values[i] == (i < count ? source.value(i) : 0.0f), "loaded element", i);
  }
  const int64_t bytes = to == kFloat32 ? 4 : 2;
  const std::unique_ptr<uint8_t[]> out(new uint8_t[static_cast<size_t>(count * bytes)]);
  text::store_elements(to, values.get(), count, out.get(), 0);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t stored = 0;
    std::memcpy(&stored, out.get() + i * bytes, static_cast<size_t>(bytes));
    require(stored == expected_bits(to, values[i]), "stored element", i);
  }
}

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
    require(std::memcmp(&out[i], &want, 4) == 0, "decoded column", k0 + i);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (ElementType from : {kFloat32, kFloat16, kBFloat16, kFloat8E4M3, kFloat8E8M0, kUInt8}) {
      for (ElementType to : {kFloat32, kFloat16, kBFloat16}) check_runs(from, to, random);
    }
    for (int bits = 1; bits <= 8; ++bits) {
      for (ElementType type : {kFloat32, kFloat16, kBFloat16}) {
        check_dequantize(bits, type, random);
        check_decode(bits, random);
      }
    }
  });
}
