// Random calls of the kernels of weight_only_linear, at the level of plain loops, compared with
// sums that follow docs/numerics.md column by column.
#pragma once

#include "panel_case.h"
#include "plain.h"

namespace lowbit::linear_case {

using namespace weight_case;

constexpr Most kMost{.rows = 140, .columns = 300, .crowds = false};  // panels have 64 rows

// What the weights of a row are made of, a number a column. `zero` is 0, the midpoint, or stored.
struct WeightRow {
  std::vector<float> codes, numbers, scales, zeros;

  WeightRow(const Weight& weight, int64_t row) {
    const WeightFormat& f = weight.view.format;
    const uint32_t* words = weight.qweight.get() + row * weight.view.qweight_stride;
    const float absent = f.zero_kind == ZeroKind::kMidpoint ? std::ldexp(1.0f, f.bits - 1) : 0.0f;
    for (int64_t k = 0; k < f.k; ++k) {
      const int64_t cell = row / f.block_n * weight.view.scales_stride + k / f.block_k;
      const uint32_t code = expected_code(words, f.bits, f.k, k);
      const float s0 = weight.s0 ? weight.s0[row * weight.view.s0_stride] : 1.0f;
      codes.push_back(static_cast<float>(code));
      numbers.push_back(weight.table ? weight.table[code] : codes.back());
      scales.push_back(weight.scales->value(cell) * s0);
      zeros.push_back(weight.zeros ? weight.zeros->value(cell) : absent);
    }
  }
};

// run(begin, end) for each piece of at most `most` columns of each scale group.
template <typename Run>
void for_each_chunk(const WeightFormat& f, int64_t most, const Run& run) {
  for (int64_t group = 0; group < f.k; group += f.block_k) {
    const int64_t stop = std::min(group + f.block_k, f.k);
    for (int64_t begin = group; begin < stop; begin += most) {
      run(static_cast<size_t>(begin), static_cast<size_t>(std::min(begin + most, stop)));
    }
  }
}

struct LinearCase {
  Random& random;
  const Weight& weight;
  const Panels panels{weight};
  const WeightFormat& f = weight.view.format;
  // Now and then more than two squares of tiles have.
  int64_t m = random.between(1, random.below(3) ? 12 : 70);
  int64_t x_stride = f.k + random.below(3);
  ElementType type = random_float_type(random);
  int64_t bias_stride = 1 + random.below(2);
  Stored x;
  Stored bias{random.below(2) ? type : kFloat32, (f.n - 1) * bias_stride + 1,
              [&] { return random.real(); }};
  Stored addend{kFloat32, m * f.n, [&] { return random.real(); }};
  Bytes out{m * f.n * (type == kFloat32 ? 4 : 2)};
  WeightOnlyLinearParams p{};

  // draw() makes the numbers of x.
  template <typename Draw>
  LinearCase(const Weight& w, LinearMode mode, Random& r, const Draw& draw)
      : random(r), weight(w), x(type, (m - 1) * x_stride + f.k, draw) {
    p = {.weight = random.below(2) ? weight.view : panels.view,
         .m = m,
         .x = x.memory.get(),
         .x_stride = x_stride,
         .x_type = type,
         .addend = nullptr,
         .bias = nullptr,
         .bias_stride = bias_stride,
         .bias_type = bias.type,
         .out = out.memory.get(),
         .out_type = type,
         .mode = mode};
    if (random.below(2)) p.addend = reinterpret_cast<const float*>(addend.memory.get());
    if (random.below(2)) p.bias = bias.memory.get();
  }

  // As run_linear does it, with cuts of its own; threads one after the other.
  void run(const cpu::LinearKernel& kernel) {
    cpu::LinearPass pass{};
    pass.params = &p;
    pass.chunks = cpu::cut_columns(f, kernel.max_columns, kernel.tile_columns);
    pass.row_bytes = pass.chunks.width * kernel.column_bytes;
    const int64_t pass_rows = random.below(2) ? m : random.between(1, m);
    for (; pass.first_row < m; pass.first_row += pass_rows) {
      pass.rows = std::min(pass_rows, m - pass.first_row);
      pass.padded_rows = cpu::round_up(pass.rows, kernel.tile_rows);
      pass.block_rows = cpu::kTileRows * random.between(1, 4);
      run_pass(pass, kernel);
    }
  }

  void run_pass(cpu::LinearPass& pass, const cpu::LinearKernel& kernel) {
    constexpr int64_t kReadBehind = 64;  // as in linear.cpp
    const int64_t values = pass.chunks.count * pass.padded_rows;
    const Bytes x_bytes(values * pass.row_bytes + kReadBehind), scales(values * 4);
    const Bytes sums(values * 4), totals(values * 4);
    pass.x = x_bytes.memory.get();
    pass.x_scale = reinterpret_cast<float*>(scales.memory.get());
    pass.x_sum = reinterpret_cast<int32_t*>(sums.memory.get());
    pass.x_total = reinterpret_cast<float*>(totals.memory.get());
    const int64_t middle = random.below(pass.rows + 1);
    dirty_stack();
    kernel.pack_rows(pass, middle, pass.rows);
    kernel.pack_rows(pass, 0, middle);
    const int64_t slab = random.below(2) ? pass.chunks.count : random.between(1, pass.chunks.count);
    const bool whole = slab == pass.chunks.count;
    const Bytes partial(whole ? 0 : panel_count(f) * pass.rows * kPanelRows * 4);
    pass.partial = reinterpret_cast<float*>(partial.memory.get());
    for (pass.first_chunk = 0; pass.first_chunk < pass.chunks.count; pass.first_chunk += slab) {
      pass.end_chunk = std::min(pass.first_chunk + slab, pass.chunks.count);
      cpu::TaskQueue queue(panel_count(f) * ceil_div(pass.rows, pass.block_rows),
                           random.between(1, 3));
      for (int thread = 0; thread < 2; ++thread) {  // the second one finds nothing to do
        dirty_stack();
        kernel.multiply(pass, queue);
      }
    }
  }

  // Every result, with reference(weight row, x) as its sum of products.
  template <typename Reference>
  void compare(const Reference& reference) const {
    for (int64_t column = 0; column < f.n; ++column) {
      const WeightRow row(weight, column);
      for (int64_t i = 0; i < m; ++i) {
        float sum = reference(row, x.numbers.data() + i * x_stride);
        if (p.addend) sum += addend.value(i * f.n + column);
        if (p.bias) sum += bias.value(column * bias_stride);
        require_stored(type, out.memory.get(), i * f.n + column, sum);
      }
    }
  }
};

}  // namespace lowbit::linear_case
