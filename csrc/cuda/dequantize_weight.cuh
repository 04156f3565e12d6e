// Kernel of dequantize_weight: one thread decodes runs of columns, each of 32 bytes of output.
// Bound by memory: bits/8 bytes are read and 2 or 4 written for each weight.
#pragma once

#include "../dequantize_weight.h"
#include "config.h"
#include "device.cuh"

namespace lowbit::cuda {

// ---- codes ----

// The words of one plane that hold a run of kRun codes. Widths divide 32 and runs start at
// multiples of their length, so a run lies within one word or fills whole ones.
template <int kWidth, int kRun>
struct PlaneRun {
  static constexpr int kBits = kWidth * kRun;
  static constexpr int kWords = kBits > 32 ? kBits / 32 : 1;

  uint32_t words[kWords];

  // `plane_words`: words of the plane. The first of the run is always among them, the others are
  // not when the row ends before.
  LOWBIT_DEVICE void load(const uint32_t* plane, uint32_t plane_words, uint32_t run) {
    if constexpr (kBits < 32) {
      constexpr uint32_t kRunsPerWord = 32 / kBits;
      words[0] = load_constant(plane + run / kRunsPerWord) >> run % kRunsPerWord * kBits;
    } else {
      const uint32_t first = run * kWords;
      words[0] = load_constant(plane + first);
      for (uint32_t i = 1; i < kWords; ++i) {
        words[i] = first + i < plane_words ? load_constant(plane + first + i) : 0;
      }
    }
  }

  LOWBIT_DEVICE uint32_t field(int i) const {
    return words[i * kWidth / 32] >> i * kWidth % 32 & ((1u << kWidth) - 1);
  }
};

// Adds the fields of the planes from `plane` on to the codes, kBits of which remain above kShift.
// Columns behind k get what the padding holds, always a code of the format.
template <int kBits, int kRun, int kShift = 0>
LOWBIT_DEVICE void load_codes(const uint32_t* plane, int64_t k, uint32_t run,
                              uint32_t (&codes)[kRun]) {
  constexpr int kWidth = plane_width(kBits);
  const auto words = static_cast<uint32_t>(plane_words(k, kWidth));
  PlaneRun<kWidth, kRun> fields;
  fields.load(plane, words, run);
  for (int i = 0; i < kRun; ++i) {
    if constexpr (kShift == 0)
      codes[i] = fields.field(i);
    else
      codes[i] |= fields.field(i) << kShift;
  }
  if constexpr (kWidth < kBits) {
    load_codes<kBits - kWidth, kRun, kShift + kWidth>(plane + words, k, run, codes);
  }
}

// What the codes stand for before scaling.
template <int kBits, int kRun>
LOWBIT_DEVICE void load_numbers(const WeightView& w, uint32_t row, uint32_t run,
                                float (&numbers)[kRun]) {
  const auto* words = reinterpret_cast<const uint32_t*>(w.qweight) + row * w.qweight_stride;
  uint32_t codes[kRun];
  load_codes<kBits>(words, w.format.k, run, codes);
  if (kBits <= kMaxTableBits && w.table != nullptr) {
    for (int i = 0; i < kRun; ++i) numbers[i] = load_constant(w.table + codes[i]);
  } else {
    for (int i = 0; i < kRun; ++i) numbers[i] = small_integer_to_float(codes[i]);
  }
}

// ---- scales and zeros ----

// Of a group: every kind of zero becomes (t - before) * scale + after. What a kind does not have is
// +0 before and -0 after, which change no bit of any number.
struct Group {
  float before;
  float scale;
  float after;
};

struct RowScales {
  const WeightView& weight;
  int64_t scale_row;
  float s0;        // read only if the weight has one
  float midpoint;  // 2^(bits-1)

  LOWBIT_DEVICE Group group(uint32_t index) const {
    const WeightView& w = weight;
    Group g{0.0f, 0.0f, -0.0f};
    g.scale = load_element(w.scales_type, w.scales, scale_row * w.scales_stride + index);
    if (w.s0 != nullptr) g.scale = mul_rn(g.scale, s0);
    if (w.format.zero_kind == ZeroKind::kMidpoint) g.before = midpoint;
    if (w.zeros == nullptr) return g;
    const float zero = load_element(w.zeros_type, w.zeros, scale_row * w.zeros_stride + index);
    (w.format.zero_kind == ZeroKind::kValue ? g.after : g.before) = zero;
    return g;
  }
};

template <int kBits>
LOWBIT_DEVICE RowScales row_scales(const WeightView& w, const Divisor& block_n, uint32_t row) {
  const float s0 = w.s0 != nullptr ? load_constant(w.s0 + row * w.s0_stride) : 0.0f;
  return {w, block_n.divide(row), s0, static_cast<float>(1 << (kBits - 1))};
}

// Numbers to weights in place, for columns begin <= i < end of the run.
template <int kRun>
LOWBIT_DEVICE void scale_columns(Group g, uint32_t begin, uint32_t end, float (&values)[kRun]) {
  for (uint32_t i = 0; i < kRun; ++i) {
    const float value = add_rn(mul_rn(sub_rn(values[i], g.before), g.scale), g.after);
    if (begin <= i && i < end) values[i] = value;
  }
}

// Numbers to weights in place, group after group; the run starts at column `first`, before k.
template <int kRun>
LOWBIT_DEVICE void scale_run(const RowScales& scales, const Divisor& block_k, uint32_t first,
                             float (&values)[kRun]) {
  const auto k = static_cast<uint32_t>(scales.weight.format.k);
  uint32_t index = block_k.divide(first);
  uint32_t begin = first;
  while (begin < first + kRun && begin < k) {
    const Group g = scales.group(index);
    const uint32_t end = ++index * block_k.value;
    if (begin == first && end >= first + kRun) {
      scale_columns(g, 0, kRun, values);
    } else {
      scale_columns(g, begin - first, end - first, values);
    }
    begin = end;
  }
}

// ---- output ----

template <ElementType kOut>
LOWBIT_DEVICE void store_element(void* out, int64_t index, float value) {
  if constexpr (kOut == ElementType::kFloat32) {
    static_cast<float*>(out)[index] = value;
  } else {
    const float pair[2] = {value, 0.0f};
    static_cast<uint16_t*>(out)[index] = static_cast<uint16_t>(pack_output<kOut>(pair));
  }
}

// The first `count` values to the elements from `index` on.
template <ElementType kOut, int kRun>
LOWBIT_DEVICE void store_run(void* out, int64_t index, uint32_t count, bool whole,
                             const float (&values)[kRun]) {
  constexpr int kPerStore = kStoreBytes / output_bytes(kOut);
  if (!whole) {
    for (uint32_t i = 0; i < kRun; ++i) {
      if (i < count) store_element<kOut>(out, index + i, values[i]);
    }
    return;
  }
  auto* bytes = static_cast<uint8_t*>(out) + index * output_bytes(kOut);
  for (uint32_t part = 0; part < kRun / kPerStore; ++part) {
    if (part * kPerStore >= count) break;
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
      words[i] = pack_output<kOut>(values + part * kPerStore + i * kPerStore / 4);
    }
    store_16_bytes(bytes + part * kStoreBytes, words);
  }
}

// ---- kernel ----

template <int kBits, ElementType kOut>
LOWBIT_KERNEL(kDequantizeThreads)
dequantize_weight_kernel(const DequantizeWeightParams p, const DequantizeWeightConfig c) {
  constexpr int kRun = kRunBytes / output_bytes(kOut);
  const WeightView& w = p.weight;
  const auto n = static_cast<uint32_t>(w.format.n), k = static_cast<uint32_t>(w.format.k);
  const uint32_t start = block_index() * block_size() + thread_index();
  uint32_t row = c.row_runs.divide(start);
  uint32_t run = start - row * c.row_runs.value;
  while (row < n) {
    const uint32_t first = run * kRun;
    float values[kRun];
    load_numbers<kBits>(w, row, run, values);
    scale_run(row_scales<kBits>(w, c.block_n, row), c.block_k, first, values);
    store_run<kOut>(p.out, row * w.format.k + first, k - first, c.whole_stores, values);
    row += c.step_rows;
    run += c.step_runs;
    if (run >= c.row_runs.value) {
      run -= c.row_runs.value;
      ++row;
    }
  }
}

}  // namespace lowbit::cuda
