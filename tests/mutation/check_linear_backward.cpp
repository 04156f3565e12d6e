// Random weights through the CPU text of weight_only_linear_backward. Arguments: first seed, number
// of seeds.
#include "cpu/linear_backward.h"
#include "panel_case.h"
#include "plain.h"

namespace lowbit::cpu::plain {
#include "cpu/weight_only_linear_backward.inl"
}

using namespace lowbit;
using namespace lowbit::weight_case;
namespace text = lowbit::cpu::plain;

namespace {

constexpr Most kMost{.rows = 140, .columns = 300, .crowds = false};  // panels have 64 rows

struct Case {
  Random& random;
  const Weight& weight;
  const Panels panels{weight};
  const WeightFormat& f = weight.view.format;
  // Now and then several blocks, strips and passes.
  int64_t m = random.between(1, random.below(4) ? 20 : 250);
  int64_t stride = f.n + random.below(3);
  ElementType type = random_float_type(random);
  Stored grad{type, (m - 1) * stride + f.n, [&] { return random.real() - 1.0f; }};
  Bytes out{m * f.k * (type == kFloat32 ? 4 : 2)};
  WeightOnlyLinearBackwardParams p{.weight = random.below(2) ? weight.view : panels.view,
                                   .m = m,
                                   .grad = grad.memory.get(),
                                   .grad_stride = stride,
                                   .out = out.memory.get(),
                                   .type = type};

  // As run_backward does it, with cuts of its own; threads one after the other.
  void run() {
    cpu::BackwardPass pass{};
    pass.params = &p;
    pass.chunks = cpu::cut_columns(f, cpu::kSpanColumns, cpu::kLanes);
    pass.span_chunks = cpu::kSpanColumns / pass.chunks.columns;
    pass.spans = ceil_div(pass.chunks.count, pass.span_chunks);
    const int64_t pass_rows = random.below(2) ? m : random.between(1, m);
    for (; pass.first_row < m; pass.first_row += pass_rows) {
      pass.rows = std::min(pass_rows, m - pass.first_row);
      pass.padded_rows = cpu::round_up(pass.rows, cpu::kLanes);
      pass.block_rows = cpu::kStripRows * random.between(1, cpu::kMaxGradRows / cpu::kStripRows);
      run_pass(pass);
    }
  }

  void run_pass(cpu::BackwardPass& pass) {
    const Bytes transposed(pass.padded_rows * f.n * 4);
    pack(pass, transposed);
    pass.grad = reinterpret_cast<float*>(transposed.memory.get());
    in_two_parts(pass.spans * ceil_div(pass.rows, pass.block_rows),
                 [&](int64_t begin, int64_t end) { text::multiply_grad(pass, begin, end); });
  }

  // In two parts with memory of their own: each word comes from one of them, and none from both.
  void pack(cpu::BackwardPass& pass, const Bytes& transposed) {
    const int64_t words = pass.padded_rows * f.n;
    const Bytes others(words * 4);
    Bytes const* memory[] = {&transposed, &others};
    in_two_parts(panel_count(f) * ceil_div(pass.rows, cpu::kStripRows),
                 [&, part = 0](int64_t begin, int64_t end) mutable {
                   pass.grad = reinterpret_cast<float*>(memory[part++]->memory.get());
                   text::pack_grad(pass, begin, end);
                 });
    auto* whole = reinterpret_cast<float*>(transposed.memory.get());
    const auto* rest = reinterpret_cast<const float*>(others.memory.get());
    for (int64_t i = 0; i < words; ++i) {  // grad has no NaN
      if (std::isnan(whole[i]) == std::isnan(rest[i])) wrong_value("packed element %ld", i);
      if (std::isnan(whole[i])) whole[i] = rest[i];
    }
  }

  // The later part first: what it has done must stay.
  template <typename Run>
  void in_two_parts(int64_t tasks, Run run) {
    const int64_t middle = random.below(tasks + 1);
    dirty_stack();
    run(middle, tasks);
    dirty_stack();
    run(0, middle);
  }

  // Of a column of the weight: chains of fma over the rows of a panel, from 0, added in order.
  void compare() const {
    std::vector<float> column(static_cast<size_t>(f.n));
    for (int64_t k = 0; k < f.k; ++k) {
      for (int64_t n = 0; n < f.n; ++n) column[static_cast<size_t>(n)] = weight.expected(n, k);
      for (int64_t row = 0; row < m; ++row) {
        float sum = 0.0f;
        for (int64_t panel = 0; panel < f.n; panel += kPanelRows) {
          float chain = 0.0f;
          for (int64_t n = panel; n < std::min(panel + kPanelRows, f.n); ++n) {
            chain = std::fma(column[static_cast<size_t>(n)], grad.value(row * stride + n), chain);
          }
          sum += chain;
        }
        require_stored(type, out.memory.get(), row * f.k + k, sum);
      }
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) {
      const Weight weight(bits, random, kMost);
      Case c{random, weight};
      c.run();
      c.compare();
    }
  });
}
