// What check programs of products share: random weights in the panels layout, which is written a
// second time here, code by code; memory of garbage; comparisons of results.
#pragma once

#include <algorithm>

#include "codes_case.h"
#include "cpu/aligned_memory.h"

namespace lowbit::weight_case {

// Groups, units of a group, planes of a unit, words of a plane, rows; in a word the field f of byte
// i is column 4 f + i.
inline std::vector<uint32_t> expected_panels(const Weight& weight) {
  const WeightFormat& f = weight.view.format;
  const Codes codes{weight.view};
  std::vector<uint32_t> panels;
  for (int64_t first = 0; first < f.n; first += kPanelRows) {
    for (int64_t group = 0; group < f.k; group += f.block_k) {
      const int64_t stop = std::min(group + f.block_k, f.k);
      for (int64_t unit = group; unit < stop; unit += unit_columns(f.bits)) {
        int place = 0;
        for (int width : {8, 4, 2, 1}) {
          if (!(f.bits & width)) continue;
          for (int64_t begin = unit; begin < unit + unit_columns(f.bits); begin += 32 / width) {
            for (int64_t row = first; row < first + kPanelRows; ++row) {
              uint32_t word = 0;
              for (int j = 0; j < 32 / width; ++j) {
                const uint32_t field =
                    codes.at(row, begin + j, stop) >> place & ((1u << width) - 1);
                word |= field << (j % 4 * 8 + j / 4 * width);
              }
              panels.push_back(word);
            }
          }
          place += width;
        }
      }
    }
  }
  return panels;
}

// A copy in memory as long as the words, so that AddressSanitizer sees what goes beyond.
template <typename Word>
std::unique_ptr<Word[]> exact_copy(const std::vector<Word>& words) {
  std::unique_ptr<Word[]> copy(new Word[words.size()]);
  std::copy(words.begin(), words.end(), copy.get());
  return copy;
}

// The view of a weight in the panels layout, and the memory it looks at.
struct Panels {
  WeightView view;
  std::unique_ptr<uint32_t[]> qweight;
  std::unique_ptr<uint8_t[]> scales, zeros;

  explicit Panels(const Weight& weight) : view(weight.view) {
    view.format.layout = WeightLayout::kPanels;
    qweight = exact_copy(expected_panels(weight));
    view.qweight = reinterpret_cast<const int32_t*>(qweight.get());
    view.qweight_stride = panel_words(view.format);
    if (view.format.block_n != 1) return;
    scales = values_of_panels(*weight.scales, weight.view.scales_stride);
    view.scales = scales.get();
    if (!weight.zeros) return;
    zeros = values_of_panels(*weight.zeros, weight.view.zeros_stride);
    view.zeros = zeros.get();
  }

  // [panel][group][row of the panel]; of rows behind the weight's NaN, or 255.
  std::unique_ptr<uint8_t[]> values_of_panels(const Powers& rows, int64_t stride) const {
    const WeightFormat& f = view.format;
    const int64_t groups = scale_columns(f), bytes = rows.bytes();
    const auto size = static_cast<size_t>(panel_count(f) * groups * kPanelRows * bytes);
    std::unique_ptr<uint8_t[]> values(new uint8_t[size]);
    std::memset(values.get(), 0xff, size);
    for (int64_t row = 0; row < f.n; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t place = (row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows;
        std::memcpy(values.get() + place * bytes,
                    rows.memory.get() + (row * stride + group) * bytes, static_cast<size_t>(bytes));
      }
    }
    return values;
  }
};

// ---- results ----

// NaN, or -1, or 255.
inline void fill_garbage(void* memory, int64_t bytes) {
  std::memset(memory, 0xff, static_cast<size_t>(bytes));
}

struct Bytes {
  std::unique_ptr<uint8_t[], cpu::AlignedDelete> memory;
  explicit Bytes(int64_t count) : memory(cpu::aligned_memory(count)) {
    fill_garbage(memory.get(), count);
  }
};

// Locals that a text leaves as they are begin as garbage.
[[gnu::noinline]] inline void dirty_stack() {
  uint8_t below[1 << 18];
  fill_garbage(below, sizeof below);
  asm volatile("" : : "r"(below) : "memory");
}

inline void require_stored(ElementType type, const uint8_t* out, int64_t i, float want) {
  const int64_t bytes = type == kFloat32 ? 4 : 2;
  uint32_t bits = 0;
  std::memcpy(&bits, out + i * bytes, static_cast<size_t>(bytes));
  const float got = value_of_bits(type, bits);
  if (bits == expected_bits(type, want) || (std::isnan(want) && std::isnan(got))) return;
  wrong_value("element %ld: got %g, expected %g", i, static_cast<double>(got),
              static_cast<double>(want));
}

}  // namespace lowbit::weight_case
