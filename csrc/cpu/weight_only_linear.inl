// Kernel text of weight_only_linear.
//
// x is converted to fp32 once and cut into chunks of columns. A task takes a few weight rows and a
// span of x rows; per chunk it decodes the weight rows into an L1 buffer and uses them for every x
// row. Each output owns one vector of 16 partial sums: lane i adds columns i, i + 16, i + 32, ...
// in order and the lanes are added up at the end. The order is the same for every M, task split
// and instruction set.

#include "decode_weight.inl"

// ---- x: rows of one pass as [chunk][row][column], columns padded with zeros to whole vectors ----

// Start of a chunk; all chunks before it are full.
LOWBIT_INLINE float* packed_chunk(float* packed, int64_t k0, int64_t rows) {
  return packed + k0 * rows;
}

inline void round_run(LinearMode mode, int64_t count, float* values) {
  uint16_t rounded[kLanes];
  for (int64_t i = 0; i < count; i += kLanes) {
    if (mode == LinearMode::kBFloat16) {
      store_bf16(rounded, load(values + i));
      store(values + i, load_bf16(rounded));
    } else {
      store_f16(rounded, load(values + i));
      store(values + i, load_f16(rounded));
    }
  }
}

// Packs rows [begin, end) of the pass.
inline void pack_rows(const LinearPass& pass, int64_t begin, int64_t end) {
  const WeightOnlyLinearParams& p = *pass.params;
  const int64_t k = p.weight.format.k;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t k0 = 0; k0 < k; k0 += kChunk) {
      const int64_t count = at_most(kChunk, k - k0);
      const int64_t width = round_up_lanes(count);
      float* out = packed_chunk(pass.packed, k0, pass.rows) + row * width;
      load_elements(p.x_type, p.x, (pass.first_row + row) * p.x_stride + k0, count, out);
      if (p.mode != LinearMode::kExact) round_run(p.mode, width, out);
    }
  }
}

// ---- products ----

// A tile's partial sums stay in registers, and its x rows and weight rows are read from L1: 3 x 8
// sums fill 24 of 32 registers; 2 x 2 is balanced where a vector takes two of 16.
inline constexpr int kTileRows = kRegisters >= 32 ? 3 : 2;
inline constexpr int kTileColumns = kRegisters >= 32 ? 8 : 2;
inline constexpr int kSingleRowColumns = kRegisters >= 32 ? 8 : 4;

// sums[row][column] += x[row] * w[column] over `width` columns, lane by lane.
template <int kRows, int kColumns>
LOWBIT_INLINE void multiply_tile(const float* x, const float* w, int64_t width, float* sums) {
  F32 acc[kRows][kColumns];
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int c = 0; c < kColumns; ++c) acc[r][c] = load(sums + (r * kLinearColumns + c) * kLanes);
  }
  for (int64_t j = 0; j < width; j += kLanes) {
    F32 x_part[kRows];
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) x_part[r] = load(x + r * width + j);
    LOWBIT_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const F32 w_part = load_once(w + c * kChunk + j);
      LOWBIT_UNROLL
      for (int r = 0; r < kRows; ++r) acc[r][c] = fma(x_part[r], w_part, acc[r][c]);
    }
  }
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int c = 0; c < kColumns; ++c) store(sums + (r * kLinearColumns + c) * kLanes, acc[r][c]);
  }
}

// Some rows of x against all weight rows of the task.
template <int kRows, int kColumns>
inline void multiply_rows(const float* x, const float* w, int64_t width, float* sums) {
  for (int c = 0; c < kLinearColumns; c += kColumns) {
    multiply_tile<kRows, kColumns>(x, w + c * kChunk, width, sums + c * kLanes);
  }
}

inline void multiply_chunk(const float* x, int64_t rows, const float* w, int64_t width,
                           float* sums) {
  for (int64_t row = 0; row < rows;) {
    const int64_t tile = at_most(rows - row, kTileRows);
    const float* x_rows = x + row * width;
    float* row_sums = sums + row * kLinearColumns * kLanes;
    if (tile == 3) {
      multiply_rows<kTileRows, kTileColumns>(x_rows, w, width, row_sums);
    } else if (tile == 2) {
      multiply_rows<2, kTileColumns>(x_rows, w, width, row_sums);
    } else {
      multiply_rows<1, kSingleRowColumns>(x_rows, w, width, row_sums);
    }
    row += tile;
  }
}

// ---- one task: weight rows [column, column + columns), x rows [row, row + rows) of the pass ----

struct LinearTask {
  int64_t row, rows;
  int64_t column, columns;
};

LOWBIT_INLINE LinearTask linear_task(const LinearPass& pass, int64_t index) {
  const int64_t n = pass.params->weight.format.n;
  const int64_t column_blocks = ceil_div(n, kLinearColumns);
  const int64_t row = index / column_blocks * pass.task_rows;
  const int64_t column = index % column_blocks * kLinearColumns;
  return {row, at_most(pass.task_rows, pass.rows - row), column,
          at_most(kLinearColumns, n - column)};
}

inline void sum_products(const LinearPass& pass, const LinearTask& task, DecodeRow decode,
                         float* sums) {
  const WeightView& weight = pass.params->weight;
  const int64_t k = weight.format.k;
  alignas(64) float w[kLinearColumns * kChunk];
  // Weight rows behind the last are computed along and dropped: they only need to be numbers.
  std::memset(w + task.columns * kChunk, 0,
              static_cast<size_t>(kLinearColumns - task.columns) * kChunk * sizeof(float));
  std::memset(sums, 0, static_cast<size_t>(task.rows) * kLinearColumns * kLanes * sizeof(float));
  for (int64_t k0 = 0; k0 < k; k0 += kChunk) {
    const int64_t count = at_most(kChunk, k - k0);
    const int64_t width = round_up_lanes(count);
    for (int64_t c = 0; c < task.columns; ++c) {
      decode(weight, task.column + c, k0, count, w + c * kChunk);
    }
    const float* x = packed_chunk(pass.packed, k0, pass.rows) + task.row * width;
    multiply_chunk(x, task.rows, w, width, sums);
  }
}

// Adds up the lanes and the bias, rounds, and stores.
inline void finish_task(const LinearPass& pass, const LinearTask& task, const float* sums) {
  const WeightOnlyLinearParams& p = *pass.params;
  float bias[kLanes] = {};
  for (int64_t c = 0; p.bias && c < task.columns; ++c) {
    float element[kLanes] = {};
    load_elements(p.bias_type, p.bias, (task.column + c) * p.bias_stride, 1, element);
    bias[c] = element[0];
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    float out[kLanes] = {};
    for (int64_t c = 0; c < task.columns; ++c) {
      out[c] = sum(load(sums + (r * kLinearColumns + c) * kLanes));
    }
    store(out, add(load(out), load(bias)));
    const int64_t row = pass.first_row + task.row + r;
    store_elements(p.x_type, out, task.columns, p.out, row * p.weight.format.n + task.column);
  }
}

inline void linear_tasks(const LinearPass& pass, int64_t begin, int64_t end) {
  const DecodeRow decode = decode_row_for(pass.params->weight.format.bits);
  alignas(64) float sums[kLinearRows * kLinearColumns * kLanes];
  for (int64_t index = begin; index < end; ++index) {
    const LinearTask task = linear_task(pass, index);
    sum_products(pass, task, decode, sums);
    finish_task(pass, task, sums);
  }
}
