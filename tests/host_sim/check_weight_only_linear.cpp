// Random cases of the CUDA weight_only_linear kernels on the host model, without torch: every
// buffer is exactly as long as it must be. All numbers are small multiples of a power of two, whose
// sums float32 holds exactly, so results are compared bit by bit; each case is launched and
// replayed twice on the same workspace. Arguments: first seed, number of seeds.
#include "random_case.h"
#include "weight_case.h"

#include "cuda/weight_only_linear.cuh"

#ifndef LOWBIT_CHECK_BITS
#define LOWBIT_CHECK_BITS 2, 3, 4, 8
#endif

using namespace lowbit;
using namespace lowbit::weight_case;
using cuda::LinearConfig, cuda::LinearProblem;
using cuda::examples::CaseRandom, cuda::examples::launch_and_replay;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A few rounds of the ring of stages, now and then many.
Most most_extents(Random& random) {
  return {.rows = 140, .columns = random.below(8) ? 500 : 1400, .crowds = false};
}

// A canonical weight with a scale for each row, and the same in fragments.
struct FragmentWeight {
  Weight canonical;
  std::unique_ptr<uint32_t[]> codes;
  std::unique_ptr<Powers> scales, zeros;
  WeightView view;

  FragmentWeight(int bits, bool table, Random& random)
      : canonical(bits, random, most_extents(random)) {
    WeightView& w = canonical.view;
    w.format.block_n = 1;
    // Half of them in groups of whole units, as most weights are.
    if (random.below(2)) w.format.block_k = 32 * random.between(1, 5);
    canonical.make_scales(random);
    keep_exact(table, random);
    view = w;
    view.format.layout = WeightLayout::kFragments;
    pack_codes();
    scales = packed(*canonical.scales, random);
    view.scales = scales->memory.get();
    if (w.zeros == nullptr) return;
    zeros = packed(*canonical.zeros, random);
    view.zeros = zeros->memory.get();
  }

  void keep_exact(bool table, Random& random) {
    Weight& w = canonical;
    for (size_t i = 0; i < w.scales->exponents.size(); ++i)
      w.scales->set(static_cast<int64_t>(i), static_cast<int>(random.between(-1, 1)));
    const bool bytes = w.zeros && w.zeros->type == kUInt8;
    for (size_t i = 0; w.zeros && i < w.zeros->exponents.size(); ++i) {
      const int most = bytes && random.below(8) == 0 ? 7 : 3;
      const auto exponent = static_cast<int>(random.between(bytes ? 0 : -1, most));
      w.zeros->set(static_cast<int64_t>(i), exponent);
      // Now and then a zero that bfloat16 does not hold beside the power of a code.
      if (exponent == 7) w.zeros->set_byte(static_cast<int64_t>(i), 201);
    }
    const int64_t count = w.view.s0_stride ? w.view.format.n : 1;
    for (int64_t i = 0; w.s0 && i < count; ++i) w.s0[i] = random.below(2) ? 1.0f : 0.5f;
    w.table.reset(table ? new float[16] : nullptr);
    w.view.table = w.table.get();
    // Of a few digits, which float16 and bfloat16 hold.
    for (int i = 0; table && i < 16; ++i)
      w.table[i] = static_cast<float>(random.below(61) - 30) / 2;
  }

  // Bit after bit, from docs/formats.md: element e of pair q of lane 4g + c of half h.
  void pack_codes() {
    const WeightFormat& f = view.format;
    const int64_t words = f.n == 0 ? 0 : (f.n + 63) / 64 * panel_words(f);
    codes.reset(new uint32_t[static_cast<size_t>(words)]());
    view.qweight = reinterpret_cast<const int32_t*>(codes.get());
    const std::vector<int> widths = f.bits == 3 ? std::vector<int>{2, 1} : std::vector<int>{f.bits};
    for (int64_t row = 0; row < f.n; ++row) {
      for (int64_t k = 0; k < f.k; ++k) {
        const int64_t unit = unit_of(k), column = k % f.block_k % 32;
        const int64_t h = row % 64 / 32, g = row % 32 / 4, t = row % 4 / 2, parity = row % 2;
        const int64_t s = column / 16, i = parity + column % 16 / 8 * 2, c = column % 8 / 2;
        const int64_t q = 8 * s + 4 * t + i, lane = 4 * g + c, e = column % 2;
        uint32_t* plane = codes.get() + row / 64 * panel_words(f) + (unit * 2 + h) * 32 * f.bits;
        const uint32_t* stored = canonical.qweight.get() + row * canonical.view.qweight_stride;
        uint32_t code = expected_code(stored, f.bits, f.k, k);
        for (int width : widths) {
          const int64_t per_word = 16 / width;
          plane[lane * width + q / per_word] |= (code & ((1u << width) - 1))
                                                << (q % per_word * width + 16 * e);
          code >>= width;
          plane += 32 * width;
        }
      }
    }
  }

  int64_t unit_of(int64_t k) const {
    const WeightFormat& f = view.format;
    const int64_t of_group = (std::min(f.block_k, f.k) + 31) / 32;
    return k / f.block_k * of_group + k % f.block_k / 32;
  }

  // [panel, group, row of the panel]; beyond the last row any finite number does.
  std::unique_ptr<Powers> packed(const Powers& rows, Random& random) const {
    const WeightFormat& f = view.format;
    const int64_t groups = (f.k + f.block_k - 1) / f.block_k, panels = (f.n + 63) / 64;
    auto all = std::make_unique<Powers>(rows.type, panels * groups * 64, random);
    for (int64_t row = 0; row < f.n; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const size_t from = static_cast<size_t>(row * canonical.view.scales_stride + group);
        const int64_t to = (row / 64 * groups + group) * 64 + row % 64;
        all->set(to, rows.exponents[from]);
        if (rows.type == kUInt8) all->set_byte(to, rows.memory[from]);
      }
    }
    return all;
  }

  double weight(int64_t row, int64_t k) const { return canonical.expected(row, k); }
};

using Kernel = void (*)(WeightOnlyLinearParams, LinearConfig, float*);

struct LinearCase {
  CaseRandom& random;
  const FragmentWeight& weight;
  ElementType operand;
  const WeightFormat& f = weight.view.format;
  int64_t parts = random.below(4) == 0 ? 3 : 1;
  int64_t m = random.between(1, random.below(4) ? 20 : parts == 1 ? 80 : 25);
  bool ragged = f.block_k % 32 != 0 && f.block_k < f.k;
  int64_t columns = ragged ? panel_units(f) * 32 : f.k;
  int64_t x_stride = (columns + 7) / 8 * 8 + random.below(2) * 8;
  std::vector<float> numbers = std::vector<float>(static_cast<size_t>(parts * m * f.k));
  std::unique_ptr<uint16_t[], cuda::examples::Free> x;
  ElementType out_type = parts == 3 ? kFloat32 : random.below(4) ? operand : kFloat32;
  int64_t shift = random.below(2);  // an output that does not start on 8 bytes
  int64_t bias_stride = 1 + random.below(2);
  bool has_bias = random.below(2), has_addend = random.below(2);
  Stored bias{random.below(2) ? operand : kFloat32, (f.n - 1) * bias_stride + 1,
              [&] { return static_cast<float>(random.below(9)) / 2; }};
  Stored addend{kFloat32, m * f.n, [&] { return static_cast<float>(random.below(17)) / 4; }};
  std::unique_ptr<uint8_t[]> out;
  std::unique_ptr<float[]> sums;
  WeightOnlyLinearParams p{};
  LinearConfig c{};

  LinearCase(const FragmentWeight& w, ElementType type, CaseRandom& r)
      : random(r), weight(w), operand(type) {
    const int64_t rows = parts * m;
    const auto count = static_cast<size_t>((rows - 1) * x_stride + columns);
    x.reset(static_cast<uint16_t*>(std::aligned_alloc(16, (count * 2 + 15) / 16 * 16)));
    out.reset(new uint8_t[static_cast<size_t>((m * f.n + shift) * cuda::output_bytes(out_type))]);
    p = {.weight = weight.view,
         .m = m,
         .x = x.get(),
         .x_stride = x_stride,
         .x_type = operand,
         .addend = has_addend ? reinterpret_cast<const float*>(addend.memory.get()) : nullptr,
         .bias = has_bias ? bias.memory.get() : nullptr,
         .bias_stride = bias_stride,
         .bias_type = bias.type,
         .out = out.get() + shift * cuda::output_bytes(out_type),
         .out_type = out_type,
         .mode = LinearMode::kDense};
    choose_cut(rows);
    const int64_t floats = c.splits * rows * c.padded_n;
    if (c.adds_sums()) sums.reset(new float[static_cast<size_t>(floats)]);
  }

  // The config's own choice, or any cut that it might make.
  void choose_cut(int64_t rows) {
    const auto bytes = [](ElementType type) -> int64_t {
      return type == kFloat32 ? 4 : type == kFloat16 || type == kBFloat16 ? 2 : 1;
    };
    LinearProblem problem{.format = f,
                          .rows = rows,
                          .parts = parts,
                          .columns = columns,
                          .scale_bytes = bytes(weight.view.scales_type),
                          .zero_bytes = weight.zeros ? bytes(weight.view.zeros_type) : 0,
                          .out_bytes = cuda::output_bytes(out_type),
                          .out_address = reinterpret_cast<uintptr_t>(p.out),
                          .any_rows = random.below(2) == 0,
                          .multiprocessors = random.between(1, 8),
                          .shared_bytes = 227 << 10};
    if (random.below(4) == 0) {
      c = cuda::weight_only_linear_config(problem);
      return;
    }
    const int64_t least = rows > cuda::kSmallTileM ? 2 : 0;
    const int64_t row_warps = int64_t{1} << random.between(least, 3);
    const int64_t splits = int64_t{1} << (random.below(2) ? 0 : random.between(1, 3));
    const auto shallow =
        cuda::with_memory(cuda::cut_linear(problem, row_warps, splits), problem, 2);
    problem.shared_bytes = random.between(shallow.shared_bytes, 227 << 10);
    c = cuda::cut_linear(problem, row_warps, splits);
  }

  // Between rows and, in ragged groups, nowhere else lies infinity; filled up columns are 0.
  void refill() {
    for (float& number : numbers) number = static_cast<float>(random.below(5) - 2);
    // An infinity stays in its row, as a product of 0 and it is NaN; remainders add NaN to that.
    const bool integer_zeros = !weight.view.table && !weight.zeros;
    if (m > 1 && integer_zeros) numbers[static_cast<size_t>(f.k + f.k / 2)] = kInfinity;
    const int64_t rows = parts * m, count = (rows - 1) * x_stride + columns;
    const auto infinity = static_cast<uint16_t>(expected_bits(operand, kInfinity));
    for (int64_t i = 0; i < count; ++i) x[static_cast<size_t>(i)] = infinity;
    for (int64_t row = 0; row < rows; ++row) {
      uint16_t* to = x.get() + row * x_stride;
      for (int64_t i = 0; i < columns; ++i) to[i] = 0;
      for (int64_t k = 0; k < f.k; ++k) {
        const int64_t at = ragged ? weight.unit_of(k) * 32 + k % f.block_k % 32 : k;
        to[at] = static_cast<uint16_t>(
            expected_bits(operand, numbers[static_cast<size_t>(row * f.k + k)]));
      }
    }
  }

  void launch(Kernel kernel) {
    using cuda::kLinearThreads;
    cuda::launch("weight_only_linear", kernel,
                 {.blocks = c.tiles_n,
                  .threads = kLinearThreads,
                  .shared_bytes = c.shared_bytes,
                  .blocks_y = c.splits,
                  .blocks_z = c.tiles_m},
                 nullptr, p, c, sums.get());
    if (!c.adds_sums()) return;
    cuda::launch("weight_only_linear", cuda::weight_only_linear_sums_kernel,
                 {ceil_div(m * f.n, kLinearThreads), kLinearThreads}, nullptr, p, c,
                 static_cast<const float*>(sums.get()));
  }

  void compare(int turn) const {
    for (int64_t n = 0; n < f.n; ++n) {
      std::vector<double> row;
      for (int64_t k = 0; k < f.k; ++k) row.push_back(weight.weight(n, k));
      for (int64_t i = 0; i < m; ++i) {
        double y = has_addend ? addend.value(i * f.n + n) : 0.0;
        if (has_bias) y += bias.value(n * bias_stride);
        for (int64_t part = 0; part < parts; ++part) {
          const float* x_row = numbers.data() + (part * m + i) * f.k;
          for (int64_t k = 0; k < f.k; ++k) y += row[static_cast<size_t>(k)] * x_row[k];
        }
        require_value(turn, i, n, y);
      }
    }
  }

  void require_value(int turn, int64_t i, int64_t n, double y) const {
    const int bytes = cuda::output_bytes(out_type);
    uint32_t got = 0;
    std::memcpy(&got, out.get() + (i * f.n + n + shift) * bytes, static_cast<size_t>(bytes));
    const uint32_t want = expected_bits(out_type, static_cast<float>(y));
    const float a = value_of_bits(out_type, got), b = value_of_bits(out_type, want);
    if (a == b || (a != a && b != b)) return;  // +0 and -0 are one number, and so are NaN
    wrong_value(
        "%d bits, launch %d, n %ld, k %ld, m %ld, row %ld, column %ld: got %g, want %g (%s)",
        f.bits, turn, f.n, f.k, m, i, n, a, b, describe(c).c_str());
  }
};

template <int kBits, bool kTable, ElementType kOperand>
void check_case(CaseRandom& random) {
  const FragmentWeight weight(kBits, kTable, random);
  LinearCase example(weight, kOperand, random);
  const Kernel kernel =
      example.c.tile_m == cuda::kSmallTileM
          ? cuda::weight_only_linear_kernel<kBits, kTable, kOperand, cuda::kSmallTileM>
          : cuda::weight_only_linear_kernel<kBits, kTable, kOperand, cuda::kLargeTileM>;
  launch_and_replay([&] { example.refill(); }, [&] { example.launch(kernel); },
                    [&](int turn) { example.compare(turn); });
}

template <int... kBits>
void check_some(CaseRandom& random) {
  using Check = void (*)(CaseRandom&);
  constexpr Check kChecks[] = {check_case<kBits, false, kFloat16>...,
                               check_case<kBits, false, kBFloat16>...,
                               check_case<4, true, kFloat16>, check_case<4, true, kBFloat16>};
  constexpr int64_t kCount = sizeof(kChecks) / sizeof(Check);
  kChecks[random.below(kCount)](random);
}

}  // namespace

int main(int argc, char** argv) {
  return cuda::examples::check_seeds(argc, argv, [](uint64_t seed) {
    CaseRandom random(seed);
    check_some<LOWBIT_CHECK_BITS>(random);
  });
}
