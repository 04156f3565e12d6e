// Random factors through the CPU text of the low-rank term, at the level of plain loops. Numbers
// are small integers: sums are exact in any order. Arguments: first seed, number of seeds.
#include <algorithm>

#include "cpu/low_rank.h"
#include "cpu/simd.h"
#include "weight_case.h"

namespace lowbit::cpu::scalar {
#include "cpu/low_rank.inl"
}

using namespace lowbit;
using namespace lowbit::weight_case;
namespace text = lowbit::cpu::scalar;

namespace {

constexpr float kUntouched = 12345.5f;  // no sum of integers

struct Matrix {
  ElementType type;
  int64_t stride;
  Stored stored;
  cpu::DenseView view;

  Matrix(int64_t rows, int64_t columns, Random& random)
      : type(random_float_type(random)),
        stride(columns + random.below(3)),
        stored(type, (rows - 1) * stride + columns,
               [&] { return static_cast<float>(random.between(-3, 3)); }),
        view{stored.memory.get(), rows, columns, stride, type} {}

  float at(int64_t row, int64_t column) const { return stored.value(row * stride + column); }
};

// As long as it must be, so that AddressSanitizer sees what goes beyond.
struct Floats {
  std::unique_ptr<float[]> memory;
  explicit Floats(int64_t count) : memory(new float[static_cast<size_t>(count)]) {
    std::fill(memory.get(), memory.get() + count, kUntouched);
  }
};

void require(const char* what, int64_t row, int64_t column, float got, float want) {
  if (got == want) return;
  wrong_value("%s, row %ld, column %ld: got %g, expected %g", what, row, column,
              static_cast<double>(got), static_cast<double>(want));
}

struct Case {
  Random& random;
  int64_t m = random.between(1, 10), k = random.between(1, 70);
  int64_t rank = random.between(1, 40), n = random.between(1, 50);
  int64_t width = (k + 15) / 16 * 16;
  Matrix x{m, k, random}, a{rank, k, random}, b{n, rank, random};
  Floats x_floats{m * width}, inner{m * rank}, addend{m * n};
  cpu::LowRankParams p{
      x.view, a.view, b.view, x_floats.memory.get(), inner.memory.get(), addend.memory.get()};

  float expected_inner(int64_t row, int64_t r) const {
    float sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += x.at(row, i) * a.at(r, i);
    return sum;
  }

  float expected_addend(int64_t row, int64_t column) const {
    float sum = 0;
    for (int64_t r = 0; r < rank; ++r) sum += p.inner[row * rank + r] * b.at(column, r);
    return sum;
  }

  // Calls run(begin, end) for two parts of the tasks, as two threads would, and check(end) after.
  template <typename Run, typename Check>
  void in_two_parts(int64_t tasks, const Run& run, const Check& check) {
    const int64_t middle = random.below(tasks + 1);
    run(int64_t{0}, middle);
    check(middle);
    run(middle, tasks);
    check(tasks);
  }

  void check() {
    in_two_parts(
        m, [&](int64_t begin, int64_t end) { text::convert_rows(p, begin, end); },
        [&](int64_t end) {
          for (int64_t i = 0; i < m * width; ++i) {
            const int64_t row = i / width, column = i % width;
            const float number = column < k ? x.at(row, column) : 0.0f;
            require("x", row, column, p.x_floats[i], row < end ? number : kUntouched);
          }
        });
    Floats factors(text::kFactorRows * width), block(rank * 16);
    in_two_parts((rank + text::kFactorRows - 1) / text::kFactorRows,
                 [&](int64_t begin, int64_t end) {
                   text::inner_products(p, factors.memory.get(), begin, end);
                 },
                 [&](int64_t end) {
                   for (int64_t i = 0; i < m * rank; ++i) {
                     const int64_t row = i / rank, r = i % rank;
                     const bool done = r < end * text::kFactorRows;
                     require("x a", row, r, p.inner[i], done ? expected_inner(row, r) : kUntouched);
                   }
                 });
    in_two_parts((n + 15) / 16,
                 [&](int64_t begin, int64_t end) {
                   text::outer_products(p, block.memory.get(), begin, end);
                 },
                 [&](int64_t end) {
                   for (int64_t i = 0; i < m * n; ++i) {
                     const int64_t row = i / n, column = i % n;
                     const bool done = column < end * 16;
                     require("x a b", row, column, p.addend[i],
                             done ? expected_addend(row, column) : kUntouched);
                   }
                 });
  }
};

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    Case{random}.check();
  });
}
