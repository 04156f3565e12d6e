// Random weights through the CPU texts of the mode int8x2: rows of codes, codes as they are stored,
// and tiles. docs/numerics.md defines the results to the last bit. Arguments: first seed, number of
// seeds.
#include "linear_case.h"

namespace lowbit::cpu::plain {
#include "cpu/linear_int8x2_amx.inl"
}

using namespace lowbit;
using namespace lowbit::linear_case;
namespace text = lowbit::cpu::plain;

namespace {

constexpr float kLargest = 16256.0f, kSmallest = 0x1p-100f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// ---- inputs ----

// Tables of integers times a power of two, of numbers that are none, and of extremes.
void choose_table(const Weight& weight, Random& random) {
  if (!weight.table) return;
  const int entries = 1 << weight.view.format.bits;
  const auto place = static_cast<size_t>(random.below(entries));
  const int64_t kind = random.below(8);
  // The ends of the powers of two that are tried, and what makes too large integers of all.
  constexpr int kExponents[] = {-16, 16, 18};
  const int exponent = kExponents[random.below(3)] + static_cast<int>(random.between(-1, 1));
  for (int i = 0; i < entries; ++i) {
    float& number = weight.table[static_cast<size_t>(i)];
    const auto integer = static_cast<float>(random.between(-127, 127));
    if (kind < 3) number = std::ldexp(integer, exponent);
    if (kind == 3) number = std::ldexp(number, -110);
    if (kind == 4) number = std::min(number, 0.75f) * kSmallest;
  }
  if (kind == 0) weight.table[place] = std::ldexp(random.below(2) ? 127.0f : -127.0f, exponent);
  if (kind == 1) weight.table[place] = std::ldexp(1.0f, exponent);
  if (kind == 4) weight.table[place] = kSmallest;
  if (kind == 5) weight.table[place] = random.below(2) ? kInfinity : kNan;
}

// Zeros that are no codes, and that no int32 holds.
void choose_zeros(const Weight& weight, Random& random) {
  if (!weight.zeros || weight.zeros->type == kUInt8) return;
  for (size_t i = 0; i < weight.zeros->exponents.size(); ++i) {
    if (random.below(8)) continue;
    const int most = weight.zeros->type == kFloat16 ? 15 : 40;
    weight.zeros->set(static_cast<int64_t>(i), static_cast<int>(random.between(4, most)));
  }
}

struct DrawX {
  Random& random;
  int64_t kind = random.below(5);
  float operator()() const {
    const float number = random.real() - 1.0f;
    if (kind == 3) return std::ldexp(number, 127);  // sums of few of them are infinite
    if (kind == 0) return random.below(3) ? 0.0f : number * 1e3f;  // chunks of zeros, peaks
    if (kind == 1 && random.below(200) == 0) return random.below(2) ? kInfinity : kNan;
    if (kind == 2 && random.below(2)) return std::ldexp(number < 0 ? -1.0f : 1.0f, -100);
    return kind == 2 ? 0.0f : number;
  }
};

// ---- results ----

struct Quantized {
  float scale;
  std::vector<int> q;
};

Quantized quantize_x(const float* x, size_t begin, size_t end) {
  Quantized result{0.0f, std::vector<int>(end - begin)};
  float largest = 0.0f;
  bool finite = true;
  for (size_t k = begin; k < end; ++k) {
    largest = std::max(largest, std::fabs(x[k]));
    finite = finite && std::isfinite(x[k]);
  }
  if (!finite) result.scale = kNan;
  if (!finite || largest < kSmallest) return result;
  result.scale = largest / kLargest;
  for (size_t k = begin; k < end; ++k) {
    result.q[k - begin] = static_cast<int>(std::nearbyint(x[k] * (kLargest / largest)));
  }
  return result;
}

// A table as integers for each code, with a factor for each plane of them.
struct Planes {
  std::vector<float> factors;
  std::vector<std::vector<int>> integers;

  Planes(const float* table, size_t entries) {
    if (!table) return;
    for (int j = -16; j <= 16 && factors.empty(); ++j) take_integers(table, entries, j);
    if (factors.empty()) take_two_planes(table, entries);
  }

  void take_integers(const float* table, size_t entries, int j) {
    std::vector<int> plane;
    for (size_t i = 0; i < entries; ++i) {
      const float number = std::ldexp(table[i], j);
      if (std::fabs(number) > 127.0f || number != std::trunc(number)) return;
      plane.push_back(static_cast<int>(number));
    }
    factors = {std::ldexp(1.0f, -j)};
    integers = {plane};
  }

  void take_two_planes(const float* table, size_t entries) {
    float largest = 0.0f;
    bool finite = true;
    for (size_t i = 0; i < entries; ++i) {
      largest = std::max(largest, std::fabs(table[i]));
      finite = finite && std::isfinite(table[i]);
    }
    const float unit = finite ? largest / kLargest : kNan;
    factors = {128.0f * unit, unit};
    integers.resize(2);
    for (size_t i = 0; i < entries; ++i) {
      const bool counts = finite && largest >= kSmallest;
      const int whole = counts ? static_cast<int>(std::nearbyint(table[i] / unit)) : 0;
      const int high = (whole + 64) >> 7;
      integers[0].push_back(high);
      integers[1].push_back(whole - 128 * high);
    }
  }
};

struct Zero {
  int integer;
  float rest;
  bool has_rest;
};

Zero split_zero(const Weight& weight, float scale, float zero) {
  const WeightFormat& f = weight.view.format;
  const int middle = 1 << (f.bits - 1);
  const bool is_value = f.zero_kind == ZeroKind::kValue;
  if (weight.table) {
    const float rest = is_value ? zero : scale * -zero;
    return {0, rest, f.zero_kind != ZeroKind::kNone};
  }
  if (f.zero_kind == ZeroKind::kNone) return {0, 0.0f, false};
  if (f.zero_kind == ZeroKind::kMidpoint) return {middle, 0.0f, false};
  if (is_value) {
    const float product = scale * static_cast<float>(middle);
    return {middle, product + zero, true};
  }
  const int integer = static_cast<int>(std::nearbyint(std::min(zero, 255.0f)));
  return {integer, scale * (static_cast<float>(integer) - zero), weight.view.zeros_type != kUInt8};
}

float expected_sum(const Weight& weight, const Planes& planes, const WeightRow& w, const float* x) {
  float sum = 0.0f;
  for_each_chunk(weight.view.format, 128, [&](size_t begin, size_t end) {
    const Quantized chunk = quantize_x(x, begin, end);
    const float scale = w.scales[begin];
    const Zero zero = split_zero(weight, scale, w.zeros[begin]);
    const auto add = [&](const auto& integer, float factor) {
      int total = 0;
      for (size_t k = begin; k < end; ++k) total += integer(w.codes[k]) * chunk.q[k - begin];
      sum = std::fma(static_cast<float>(total) * chunk.scale, factor, sum);
    };
    if (!weight.table) {
      add([&](float code) { return static_cast<int>(code) - zero.integer; }, scale);
    }
    for (size_t i = 0; i < planes.factors.size(); ++i) {
      add([&](float code) { return planes.integers[i][static_cast<size_t>(code)]; },
          scale * planes.factors[i]);
    }
    int x_total = 0;
    for (int q : chunk.q) x_total += q;
    if (zero.has_rest) sum = std::fma(static_cast<float>(x_total) * chunk.scale, zero.rest, sum);
  });
  return sum;
}

// The offsets of a group, in memory of their own: a case has them in the midst of its scratch.
void check_offsets(int bits, Random& random) {
  const Weight weight(bits, random, kMost);
  const WeightFormat& f = weight.view.format;
  const int64_t panel = random.below(panel_count(f)), group = random.below(scale_columns(f));
  const auto values = std::make_unique<text::PanelGroup>();
  const Bytes memory(kPanelRows * 4);
  const auto* offsets = reinterpret_cast<const float*>(memory.memory.get());
  text::load_panel_group(weight.view, panel, group, *values);
  text::offsets_of_zeros(weight.view, *values, reinterpret_cast<float*>(memory.memory.get()));
  for (int64_t row = panel * kPanelRows; row < std::min(f.n, (panel + 1) * kPanelRows); ++row) {
    const WeightRow w(weight, row);
    const auto k = static_cast<size_t>(group * f.block_k);
    const bool is_value = f.zero_kind == ZeroKind::kValue;
    const float want = is_value ? w.zeros[k] : w.scales[k] * -w.zeros[k];
    if (offsets[row % kPanelRows] != want) wrong_value("offset of row %ld", row);
  }
}

void check_case(int bits, bool tiles, Random& random) {
  const Weight weight(bits, random, kMost);
  choose_table(weight, random);
  choose_zeros(weight, random);
  LinearCase c(weight, LinearMode::kInt8x2, random, DrawX{random});
  if (!tiles && random.below(2)) c.m = c.p.m = std::min<int64_t>(c.m, text::kDotRows);
  if (tiles) {
    c.run({cpu::kMaxChunkColumns, 64, 2, cpu::kTileRows, text::pack_rows_int8x2_tiles,
           text::multiply_int8x2_tiles});
  } else {
    c.run({cpu::kMaxChunkColumns, 64, 2, 1, text::pack_rows_int8x2,
           text::choose_multiply_int8x2(c.p.weight, c.m)});
  }
  const Planes planes(weight.table.get(), size_t{1} << bits);
  c.compare(
      [&](const WeightRow& row, const float* x) { return expected_sum(weight, planes, row, x); });
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) {
      check_offsets(bits, random);
      for (bool tiles : {false, true}) check_case(bits, tiles, random);
    }
  });
}
