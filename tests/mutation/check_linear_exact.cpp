// Random weights through the CPU text that multiplies in fp32: the modes exact, fp16 and bf16.
// Arguments: first seed, number of seeds.
#include "linear_case.h"

namespace lowbit::cpu::plain {
#include "cpu/linear_exact.inl"
}

using namespace lowbit;
using namespace lowbit::linear_case;
namespace text = lowbit::cpu::plain;

namespace {

// Chains of fma over 64 columns, from 0, added in ascending order.
float expected_sum(const WeightFormat& f, ElementType numbers, const WeightRow& w, const float* x) {
  const bool whole = f.zero_kind == ZeroKind::kValue;  // else the scale multiplies the chain
  float sum = 0.0f;
  for_each_chunk(f, 64, [&](size_t begin, size_t end) {
    float chain = 0.0f;
    for (size_t k = begin; k < end; ++k) {
      const float t = rounded(numbers, w.numbers[k]);  // table entries: codes stay as they are
      const float product = t * w.scales[k];
      const float weight = whole ? product + w.zeros[k] : t - w.zeros[k];
      chain = std::fma(rounded(numbers, x[k]), weight, chain);
    }
    sum = std::fma(chain, whole ? 1.0f : w.scales[begin], sum);
  });
  return sum;
}

// The code panel of a chunk, in memory for its units: a case fills them in the midst of its
// scratch.
void check_codes(int bits, Random& random) {
  const Weight weight(bits, random, kMost);
  const Panels panels(weight);
  const WeightView& view = random.below(2) ? weight.view : panels.view;
  const WeightFormat& f = view.format;
  const cpu::Chunks chunks = cpu::cut_columns(f, text::kExactColumns, cpu::kLanes);
  const text::Chunk chunk = text::chunk_at(chunks, f, random.below(chunks.count));
  const int64_t panel = random.below(panel_count(f));
  const bool stored = f.layout == WeightLayout::kPanels;
  const Bytes codes(cpu::round_up(chunk.columns, stored ? unit_columns(bits) : 4) * kPanelRows);
  text::fill_codes_for(f)(view, panel, chunk, codes.memory.get());
  for (int64_t row = panel * kPanelRows; row < std::min(f.n, (panel + 1) * kPanelRows); ++row) {
    const uint32_t* words = weight.qweight.get() + row * weight.view.qweight_stride;
    for (int64_t k = 0; k < chunk.columns; ++k) {
      const int64_t place = (k / 4 * kPanelRows + row % kPanelRows) * 4 + k % 4;
      if (codes.memory[static_cast<size_t>(place)] ==
          expected_code(words, bits, f.k, chunk.k0 + k)) {
        continue;
      }
      wrong_value("code of row %ld, column %ld", row, chunk.k0 + k);
    }
  }
}

void check_case(int bits, LinearMode mode, Random& random) {
  const Weight weight(bits, random, kMost);
  LinearCase c(weight, mode, random, [&] { return random.real() - 1.0f; });
  c.run({text::kExactColumns, cpu::kLanes, 4, 1, text::pack_rows_exact, text::multiply_exact});
  const ElementType numbers = mode == LinearMode::kBFloat16  ? kBFloat16
                              : mode == LinearMode::kFloat16 ? kFloat16
                                                             : kFloat32;
  c.compare([&](const WeightRow& row, const float* x) {
    return expected_sum(weight.view.format, numbers, row, x);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) {
      check_codes(bits, random);
      for (LinearMode mode : {LinearMode::kExact, LinearMode::kFloat16, LinearMode::kBFloat16}) {
        check_case(bits, mode, random);
      }
    }
  });
}
