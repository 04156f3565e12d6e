// fp32 products: the modes exact and fp16, and bf16 where there are no bfloat16 dot products.

#include "dot_tile.inl"
#include "linear_panel.inl"

// A panel of 64 columns is 16 KiB, half of the smallest first cache.
inline constexpr int64_t kExactColumns = 64;

// Rows of x and vectors of outputs whose sums stay in registers.
inline constexpr int kExactRows = kRegisters >= 32 ? 6 : kRegisters >= 8 ? 3 : 1;
inline constexpr int kExactVectors = kRegisters >= 32 ? 4 : 2;

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

inline void pack_rows_exact(const LinearPass& pass, int64_t begin, int64_t end) {
  const LinearMode mode = pass.params->mode;
  const int64_t width = pass.chunks.width;
  for_each_x(pass, begin, end, [&](int64_t c, int64_t row, const float* x) {
    auto* out = reinterpret_cast<float*>(x_row(pass, c, row));
    std::memcpy(out, x, static_cast<size_t>(width) * sizeof(float));
    if (mode != LinearMode::kExact) round_run(mode, width, out);
  });
}

// The modes bf16 and fp16 round the table like x.
inline F32 table_of_mode(const WeightView& w, LinearMode mode) {
  alignas(64) float numbers[kLanes];
  store(numbers, table_numbers(w));
  if (mode != LinearMode::kExact) round_run(mode, kLanes, numbers);
  return load(numbers);
}

// sums[row][64] += scale * (x[row] . panel), for some rows and vectors.
template <int kRows, int kColumnVectors>
LOWBIT_INLINE void multiply_tile(const float* x, int64_t width, const float* panel,
                                 const float* scale, int64_t columns, float* sums) {
  F32 acc[kRows][kColumnVectors];
  dot_tile(x, width, panel, kPanelRows, columns, acc);
  LOWBIT_UNROLL
  for (int v = 0; v < kColumnVectors; ++v) {
    const F32 s = load(scale + v * kLanes);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float* sum = sums + r * kPanelRows + v * kLanes;
      store(sum, fma(acc[r][v], s, load(sum)));
    }
  }
}

template <int kRows>
LOWBIT_INLINE void multiply_rows(const float* x, int64_t width, const float* panel,
                                 const float* scale, int64_t columns, float* sums) {
  for (int v = 0; v < kVectors; v += kExactVectors) {
    multiply_tile<kRows, kExactVectors>(x, width, panel + v * kLanes, scale + v * kLanes, columns,
                                        sums + v * kLanes);
  }
}

// Rows in tiles of kRows; the rest in a smaller one.
template <int kRows>
inline void multiply_chunk(const float* x, int64_t width, int64_t rows, const float* panel,
                           const float* scale, int64_t columns, float* sums) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    multiply_rows<kRows>(x + row * width, width, panel, scale, columns, sums + row * kPanelRows);
  }
  if constexpr (kRows > 1) {
    if (row < rows) {
      multiply_chunk<kRows - 1>(x + row * width, width, rows - row, panel, scale, columns,
                                sums + row * kPanelRows);
    }
  }
}

struct ExactScratch {
  alignas(64) uint8_t codes[kExactColumns * kPanelRows] = {};
  alignas(64) float panel[kExactColumns * kPanelRows];
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  PanelGroup group;
};

inline void multiply_exact(const LinearPass& pass, TaskQueue& queue) {
  const WeightView& w = pass.params->weight;
  const FillCodes fill_codes = fill_codes_for(w.format);
  const F32 table = w.table ? table_of_mode(w, pass.params->mode) : splat(0.0f);
  alignas(64) float ones[kPanelRows];
  for (float& one : ones) one = 1.0f;
  // t - z, which the scale multiplies after the sum; of the zero kind value the weight itself.
  const bool whole = w.format.zero_kind == ZeroKind::kValue;
  const auto number = [=](F32 t, F32 scale, F32 zero) {
    return whole ? add(mul(t, scale), zero) : sub(t, zero);
  };
  ExactScratch s;
  ChunkWalk walk(pass, queue);
  for (Step step{}; walk.next(step);) {
    const auto& [task, chunk, first, last, first_of_group] = step;
    if (first) begin_task(pass, task, s.sums);
    if (first_of_group) load_panel_group(w, task.panel, chunk.group, s.group);
    fill_codes(w, task.panel, chunk, s.codes);
    decode_panel(w, table, s.codes, s.group, chunk.columns, number, s.panel);
    const float* scale = whole ? ones : s.group.scale;
    const auto* x = reinterpret_cast<const float*>(x_row(pass, chunk.index, task.row));
    multiply_chunk<kExactRows>(x, pass.chunks.width, task.rows, s.panel, scale, chunk.columns,
                               s.sums);
    if (last) end_task(pass, task, s.sums);
  }
}
