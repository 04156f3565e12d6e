// The stored form of a quantized weight w[n, k], as kernels see it: plain integers and raw
// pointers. CPU and CUDA texts share it; docs/formats.md describes the same layout in words.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace lowbit {

// Element types of the tensors that kernels read and write.
enum class ElementType : int32_t {
  kFloat32,
  kFloat16,
  kBFloat16,
  kFloat8E4M3,
  kFloat8E8M0,
  kUInt8,
  kInt32,
};

// How a decoded number t becomes a weight: with S = scale (* s0),
//   none t * S    midpoint (t - 2^(bits-1)) * S    code (t - z) * S    value t * S + v.
// Every operation is rounded to fp32 on its own, so that all backends give equal bits.
enum class ZeroKind : int32_t { kNone = 0, kMidpoint = 1, kCode = 2, kValue = 3 };

// Canonical: rows of planes (docs/formats.md), what is stored. The packed ones: panels of 64 rows,
// in the order in which CPU kernels (kPanels) or tensor cores of CUDA devices (kFragments) take
// them.
enum class WeightLayout : int32_t { kCanonical = 0, kPanels = 1, kFragments = 2 };

inline constexpr int64_t kWeightFormatVersion = 1;
inline constexpr int64_t kWeightFormatFields = 8;
inline constexpr int kMaxTableBits = 4;
// Extents stay below 2^31, so that k * bits and every group count fit in 64 bits with room to
// spare.
inline constexpr int64_t kMaxWeightExtent = INT32_MAX;

// The fields of the op argument `format`, in their order after the leading version.
struct WeightFormat {
  int32_t bits;
  int64_t n;
  int64_t k;
  int64_t block_n;  // rows that share one scale row
  int64_t block_k;  // columns of one group; k need not be a multiple
  ZeroKind zero_kind;
  WeightLayout layout;
};

LOWBIT_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Codes are stored as planes whose widths divide 32, low plane first: 7 bits = 4 + 2 + 1.
// The next plane is always as wide as the highest power of two in the bits that remain.
LOWBIT_HOST_DEVICE constexpr int plane_width(int remaining_bits) {
  return remaining_bits >= 8 ? 8 : remaining_bits >= 4 ? 4 : remaining_bits >= 2 ? 2 : 1;
}

// int32 words of one plane of one row.
LOWBIT_HOST_DEVICE constexpr int64_t plane_words(int64_t k, int width) {
  return ceil_div(k * width, 32);
}

// int32 words of one row, all planes.
LOWBIT_HOST_DEVICE constexpr int64_t row_words(int64_t k, int bits) {
  int64_t words = 0;
  for (int remaining = bits; remaining > 0; remaining -= plane_width(remaining)) {
    words += plane_words(k, plane_width(remaining));
  }
  return words;
}

LOWBIT_HOST_DEVICE constexpr int64_t scale_rows(const WeightFormat& f) {
  return ceil_div(f.n, f.block_n);
}

LOWBIT_HOST_DEVICE constexpr int64_t scale_columns(const WeightFormat& f) {
  return ceil_div(f.k, f.block_k);
}

// ---- packed layouts ----

inline constexpr int64_t kPanelRows = 64;

// kPanels: columns of the smallest run that fills whole 64-byte vectors of every plane with codes
// of 16 rows.
LOWBIT_HOST_DEVICE constexpr int unit_columns(int bits) { return 32 / (bits & -bits); }

// kFragments: columns of two fragments.
inline constexpr int kFragmentUnitColumns = 32;

LOWBIT_HOST_DEVICE constexpr int unit_columns(const WeightFormat& f) {
  return f.layout == WeightLayout::kFragments ? kFragmentUnitColumns : unit_columns(f.bits);
}

// int32 words of one unit of a panel, in kPanels.
LOWBIT_HOST_DEVICE constexpr int64_t unit_words(int bits) {
  return unit_columns(bits) * kPanelRows * bits / 32;
}

LOWBIT_HOST_DEVICE constexpr int64_t panel_count(const WeightFormat& f) {
  return ceil_div(f.n, kPanelRows);
}

// Units of all groups but the last, each.
LOWBIT_HOST_DEVICE constexpr int64_t units_per_group(const WeightFormat& f) {
  return ceil_div(f.block_k < f.k ? f.block_k : f.k, unit_columns(f));
}

LOWBIT_HOST_DEVICE constexpr int64_t panel_units(const WeightFormat& f) {
  const int64_t before = scale_columns(f) - 1;
  return before * units_per_group(f) + ceil_div(f.k - before * f.block_k, unit_columns(f));
}

LOWBIT_HOST_DEVICE constexpr int64_t panel_words(const WeightFormat& f) {
  return panel_units(f) * unit_columns(f) * kPanelRows * f.bits / 32;
}

// A checked weight. Strides count elements; the last dimension of qweight, scales and zeros is
// dense. Padding bits behind the k codes of a plane are undefined in canonical layout. In the
// packed layouts qweight is dense, and so are scales and zeros of block_n 1, as [panel, group, row
// of the panel].
struct WeightView {
  WeightFormat format;
  const int32_t* qweight;  // [n, row_words(k, bits)] or [panel_count, panel_words]
  int64_t qweight_stride;
  const void* scales;  // [scale_rows, scale_columns] or [panel_count, scale_columns, 64]
  int64_t scales_stride;
  ElementType scales_type;
  const void* zeros;  // as scales; null unless zero_kind is code or value
  int64_t zeros_stride;
  ElementType zeros_type;
  const float* table;  // [2^bits], or null: the code itself is the number
  const float* s0;     // second-level scale of row i at s0[i * s0_stride], or null
  int64_t s0_stride;   // 0: one s0 for the whole weight
};

}  // namespace lowbit
