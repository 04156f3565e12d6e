// Codes of a random weight and where each layout has them, written a second time, code by code.
#pragma once

#include <algorithm>

#include "weight_case.h"

namespace lowbit::weight_case {

struct Codes {
  const WeightView& view;  // canonical

  // 0 outside of the weight, and behind the group that ends at `stop`.
  uint32_t at(int64_t row, int64_t column, int64_t stop) const {
    const WeightFormat& f = view.format;
    if (row >= f.n || column >= stop) return 0;
    const auto* words = reinterpret_cast<const uint32_t*>(view.qweight);
    return expected_code(words + row * view.qweight_stride, f.bits, f.k, column);
  }
};

// Calls visit(width, bits of the code below the plane's) for each plane.
template <typename Visit>
void for_each_plane(int bits, const Visit& visit) {
  int low = 0;
  for (int width : {8, 4, 2, 1}) {
    if (!(bits & width)) continue;
    visit(width, low);
    low += width;
  }
}

// Dense rows of planes, with zeros behind the codes.
inline std::vector<uint32_t> expected_rows(const WeightView& view) {
  const WeightFormat& f = view.format;
  const Codes codes{view};
  std::vector<uint32_t> rows(static_cast<size_t>(f.n * row_words(f.k, f.bits)));
  for (int64_t row = 0; row < f.n; ++row) {
    uint32_t* words = rows.data() + row * row_words(f.k, f.bits);
    for_each_plane(f.bits, [&](int width, int low) {
      for (int64_t column = 0; column < f.k; ++column) {
        const uint32_t field = codes.at(row, column, f.k) >> low & ((1u << width) - 1);
        words[column * width / 32] |= field << column * width % 32;
      }
      words += plane_words(f.k, width);
    });
  }
  return rows;
}

// Every code to the lane, pair and element that docs/formats.md gives it, and so its planes.
inline std::vector<uint32_t> expected_fragments(const WeightView& view) {
  const WeightFormat& f = view.format;
  const Codes codes{view};
  std::vector<int64_t> units;  // the first column of each
  for (int64_t group = 0; group < f.k; group += f.block_k) {
    const int64_t stop = std::min(group + f.block_k, f.k);
    for (int64_t first = group; first < stop; first += 32) units.push_back(first);
  }
  const int64_t panels = (f.n + 63) / 64, halves = static_cast<int64_t>(units.size()) * 2;
  std::vector<uint32_t> words(static_cast<size_t>(panels * halves * 32 * f.bits));
  for (int64_t row = 0; row < f.n; ++row) {
    for (int64_t u = 0; u < halves / 2; ++u) {
      const int64_t first = units[u], stop = std::min((first / f.block_k + 1) * f.block_k, f.k);
      for (int64_t j = 0; j < 32; ++j) {
        const int64_t lane = row % 32 / 4 * 4 + j % 8 / 2, element = j % 2;
        const int64_t pair = j / 16 * 8 + row % 4 / 2 * 4 + j % 16 / 8 * 2 + row % 2;
        const int64_t half = (row / 64 * halves + 2 * u + row % 64 / 32) * 32 * f.bits;
        const uint32_t code = codes.at(row, first + j, stop);
        for_each_plane(f.bits, [&](int width, int low) {
          const int64_t bit = 16 * element + pair * width % 16;
          const int64_t word = half + 32 * low + lane * width + pair * width / 16;
          words[word] |= (code >> low & ((1u << width) - 1)) << bit;
        });
      }
    }
  }
  return words;
}

}  // namespace lowbit::weight_case
