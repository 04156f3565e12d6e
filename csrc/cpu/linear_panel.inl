// What the kernel texts of weight_only_linear share: integer zeros, tasks, rows of x.

#include "panel.inl"

// ---- zeros for kernels that multiply integer codes ----

// w = scale * (code - zero) + offset with an integer zero in 0..255. `offset` is there where the
// stored zeros need not be integers.
struct IntegerZeros {
  alignas(64) int32_t zero[kPanelRows];
  alignas(64) float offset[kPanelRows];
};

inline bool has_offsets(const WeightView& w) {
  if (w.table) return w.format.zero_kind != ZeroKind::kNone;
  return w.zeros && (w.format.zero_kind == ZeroKind::kValue || w.zeros_type != ElementType::kUInt8);
}

inline void split_zeros(const WeightView& w, const PanelGroup& group, IntegerZeros& out) {
  for (int v = 0; v < kVectors; ++v) {
    const F32 scale = load(group.scale + v * kLanes);
    const F32 zero = load(group.zero + v * kLanes);
    I32 integer;
    F32 offset;
    if (w.format.zero_kind == ZeroKind::kValue) {
      integer = splat_i32(1 << (w.format.bits - 1));
      offset = add(mul(scale, to_float(integer)), zero);
    } else {
      // Bounded before it is rounded: what no int32 holds rounds to the least one, as NaN does.
      integer = max_i32(round_to_i32(min(splat(255.0f), zero)), splat_i32(0));
      offset = mul(scale, sub(to_float(integer), zero));
    }
    store_i32(out.zero + v * kLanes, integer);
    store(out.offset + v * kLanes, offset);
  }
}

// All of the zero as an offset: w = scale * number + offset.
inline void offsets_of_zeros(const WeightView& w, const PanelGroup& group, float* offset) {
  for (int v = 0; v < kVectors; ++v) {
    const F32 stored = load(group.zero + v * kLanes);
    const F32 negative = sub(splat(0.0f), stored);
    const bool value = w.format.zero_kind == ZeroKind::kValue;
    store(offset + v * kLanes, value ? stored : mul(load(group.scale + v * kLanes), negative));
  }
}

// ---- tasks ----

struct LinearTask {
  int64_t panel;
  int64_t row, rows;  // of the pass
};

LOWBIT_INLINE LinearTask linear_task(const LinearPass& pass, int64_t index) {
  const int64_t panels = panel_count(pass.params->weight.format);
  const int64_t row = index / panels * pass.block_rows;
  return {index % panels, row, at_most(pass.block_rows, pass.rows - row)};
}

// The place of a row of a chunk among the rows of x and their side values.
LOWBIT_INLINE int64_t x_row_index(const LinearPass& pass, int64_t chunk, int64_t row) {
  return chunk * pass.padded_rows + row;
}

LOWBIT_INLINE uint8_t* x_row(const LinearPass& pass, int64_t chunk, int64_t row) {
  return pass.x + x_row_index(pass, chunk, row) * pass.row_bytes;
}

// Adds addend and bias to the sums [rows][64] of a task, rounds, stores.
inline void finish_task(const LinearPass& pass, const LinearTask& task, float* sums) {
  const WeightOnlyLinearParams& p = *pass.params;
  const int64_t n = p.weight.format.n;
  const int64_t column = task.panel * kPanelRows;
  const int64_t columns = at_most(kPanelRows, n - column);
  float bias[kPanelRows] = {};
  for (int64_t c = 0; p.bias && c < columns; ++c) {
    float element[kLanes] = {};
    load_elements(p.bias_type, p.bias, (column + c) * p.bias_stride, 1, element);
    bias[c] = element[0];
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    const int64_t row = pass.first_row + task.row + r;
    float* out = sums + r * kPanelRows;
    for (int64_t c = 0; p.addend && c < columns; ++c) out[c] += p.addend[row * n + column + c];
    for (int v = 0; p.bias && v < kVectors; ++v) {
      store(out + v * kLanes, add(load(out + v * kLanes), load(bias + v * kLanes)));
    }
    store_elements(p.out_type, out, columns, p.out, row * n + column);
  }
}

// ---- x ----

// Columns of a row of x in fp32, zeros up to `width`; both run over whole vectors.
inline void load_x(const LinearPass& pass, int64_t row, const Chunk& chunk, float* out) {
  const WeightOnlyLinearParams& p = *pass.params;
  load_elements(p.x_type, p.x, (pass.first_row + row) * p.x_stride + chunk.k0, chunk.columns, out);
  for (int64_t k = round_up_lanes(chunk.columns); k < pass.chunks.width; k += kLanes) {
    store(out + k, splat(0.0f));
  }
}
