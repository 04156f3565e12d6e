// x as two planes of int8 with a scale for every row and chunk, x = scale * (128 * high + low).
// Products and their sums in a chunk are integers, so every instruction set gives the same bits.

#include "linear_int8x2_pack.inl"
#include "linear_int8x2_table.inl"

// ---- products ----

// What a chunk of a panel adds: sums += scale * x_scale * sum of (code - zero) * x, and the offset.
struct Int8Chunk {
  const uint8_t* codes;
  int64_t columns;      // whole quads
  const float* scale;   // [64]
  const int32_t* zero;  // [64], as halves -128 * zero, -zero
  const float* offset;  // [64] or null
  NextCodes next;
};

// Where x of the first row of a chunk lies; rows are 2 * width apart, low planes width behind.
struct Int8Rows {
  const int8_t* x;
  int64_t width;
  const float* scale;
  const int32_t* sum;
  const float* total;
};

LOWBIT_INLINE Int8Rows int8_rows(const LinearPass& pass, int64_t chunk, int64_t row) {
  const int64_t index = x_row_index(pass, chunk, row);
  return {reinterpret_cast<const int8_t*>(x_row(pass, chunk, row)), pass.chunks.width,
          pass.x_scale + index, pass.x_sum + index, pass.x_total + index};
}

// Adds one vector of outputs of one row, given the sums over both planes.
LOWBIT_INLINE void add_products(const Int8Chunk& chunk, const Int8Rows& rows, int64_t row, int v,
                                I32 high, I32 low, float* sums) {
  I32 total = add_i32(shift_left<7>(high), low);
  total = dot_halves(total, load_i32(chunk.zero + v * kLanes), splat_i32(rows.sum[row]));
  const F32 scaled = mul(to_float(total), splat(rows.scale[row]));
  float* sum = sums + row * kPanelRows + v * kLanes;
  F32 result = fma(scaled, load(chunk.scale + v * kLanes), load(sum));
  if (chunk.offset) {
    result = fma(splat(rows.total[row]), load(chunk.offset + v * kLanes), result);
  }
  store(sum, result);
}

template <int kRows, int kColumnVectors>
LOWBIT_INLINE void multiply_tile(const Int8Chunk& chunk, const Int8Rows& rows, int64_t row, int v0,
                                 float* sums) {
  I32 high[kRows][kColumnVectors], low[kRows][kColumnVectors];
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) high[r][v] = low[r][v] = splat_i32(0);
  }
  const int8_t* x = rows.x + row * 2 * rows.width;
  const uint8_t* codes = chunk.codes + v0 * 64;
  const bool first = row == 0 && v0 == 0;
  for (int64_t k = 0; k < chunk.columns; k += 4) {
    if (first) chunk.next.fetch(k, 4);
    Codes w[kColumnVectors];
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) {
      w[v] = dot_codes(load_i32(codes + k / 4 * kQuadBytes + v * 64));
    }
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x_row = x + r * 2 * rows.width + k;
      const Quad high_quad = dot_quad(x_row), low_quad = dot_quad(x_row + rows.width);
      LOWBIT_UNROLL
      for (int v = 0; v < kColumnVectors; ++v) {
        high[r][v] = dot(high[r][v], w[v], high_quad);
        low[r][v] = dot(low[r][v], w[v], low_quad);
      }
    }
  }
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) {
      add_products(chunk, rows, row + r, v0 + v, high[r][v], low[r][v], sums);
    }
  }
}

template <int kRows>
inline void multiply_rows(const Int8Chunk& chunk, const Int8Rows& rows, int64_t row, int64_t end,
                          float* sums) {
  for (; row + kRows <= end; row += kRows) {
    for (int v = 0; v < kVectors; v += kDotVectors) {
      multiply_tile<kRows, kDotVectors>(chunk, rows, row, v, sums);
    }
  }
  if constexpr (kRows > 1) multiply_rows<kRows - 1>(chunk, rows, row, end, sums);
}

// ---- tasks ----

struct Int8Scratch {
  alignas(64) uint8_t codes[kCodePanelBytes] = {};
  alignas(64) uint8_t looked_up[kCodePanelBytes] = {};
  alignas(64) float scale[kPanelRows];
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  PanelGroup group;
  IntegerZeros zeros;
};

// zero -> the halves that dot_halves takes with those of x_sum.
inline void pair_zeros(int32_t* zero) {
  for (int v = 0; v < kVectors; ++v) {
    int32_t* lanes = zero + v * kLanes;
    const I32 negative = sub_i32(splat_i32(0), load_i32(lanes));
    const I32 high = bit_and(shift_left<7>(negative), splat_i32(0xffff));
    store_i32(lanes, bit_or(high, shift_left<16>(negative)));
  }
}

inline void load_group_int8x2(const WeightView& w, int64_t panel, int64_t group, Int8Scratch& s) {
  load_panel_group(w, panel, group, s.group);
  if (w.table) {
    offsets_of_zeros(w, s.group, s.zeros.offset);
    std::fill_n(s.zeros.zero, kPanelRows, 128);
  } else {
    split_zeros(w, s.group, s.zeros);
  }
  pair_zeros(s.zeros.zero);
}

// multiply(chunk, rows of x) for the codes as they are, or for every plane of the table.
template <typename Multiply>
LOWBIT_INLINE void multiply_planes(const WeightView& w, const IntegerTable& table,
                                   const Int8Rows& rows, int64_t columns, NextCodes next,
                                   Int8Scratch& s, const Multiply& multiply) {
  const float* offset = has_offsets(w) ? s.zeros.offset : nullptr;
  if (!w.table) {
    multiply(Int8Chunk{s.codes, columns, s.group.scale, s.zeros.zero, offset, next}, rows);
    return;
  }
  for (int plane = 0; plane < table.planes; ++plane) {
    lookup_panel(s.codes, columns, table.plane[plane], s.looked_up);
    for (int v = 0; v < kVectors; ++v) {
      const F32 scale = load(s.group.scale + v * kLanes);
      store(s.scale + v * kLanes, mul(scale, splat(table.factor[plane])));
    }
    const bool last = plane + 1 == table.planes;
    multiply(Int8Chunk{s.looked_up, columns, s.scale, s.zeros.zero, last ? offset : nullptr, next},
             rows);
  }
}

// Tasks [begin, end); multiply(chunk, x rows, number of rows, sums) does the products.
template <typename Multiply>
LOWBIT_INLINE void int8x2_tasks(const LinearPass& pass, int64_t begin, int64_t end,
                                int64_t column_step, const Multiply& multiply) {
  const WeightView& w = pass.params->weight;
  const FillCodes fill_codes = fill_codes_for(w.format);
  const IntegerTable table = w.table ? integer_table(w) : IntegerTable{};
  Int8Scratch s;
  for (int64_t index = begin; index < end; ++index) {
    const LinearTask task = linear_task(pass, index);
    std::memset(s.sums, 0, static_cast<size_t>(task.rows) * kPanelRows * sizeof(float));
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      const Chunk chunk = chunk_at(pass.chunks, w.format, c);
      if (c % pass.chunks.per_group == 0) load_group_int8x2(w, task.panel, chunk.group, s);
      const NextCodes next = next_codes(w, fill_codes(w, task.panel, chunk, s.codes));
      const int64_t columns = ceil_div(chunk.columns, column_step) * column_step;
      multiply_planes(w, table, int8_rows(pass, c, task.row), columns, next, s,
                      [&](const Int8Chunk& products, const Int8Rows& rows) {
                        multiply(products, rows, task.rows, s.sums);
                      });
    }
    finish_task(pass, task, s.sums);
  }
}

inline void multiply_int8x2(const LinearPass& pass, int64_t begin, int64_t end) {
  int8x2_tasks(pass, begin, end, 4,
               [](const Int8Chunk& chunk, const Int8Rows& rows, int64_t count, float* sums) {
                 multiply_rows<kDotRows>(chunk, rows, 0, count, sums);
               });
}
