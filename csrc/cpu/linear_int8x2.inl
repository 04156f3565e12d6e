// x as two planes of int8 with a scale for every row and chunk, x = scale * (128 * high + low).
// Products and their sums in a chunk are integers, so every instruction set gives the same bits.

#include "linear_int8x2_pack.inl"
#include "linear_int8x2_table.inl"

// ---- products ----

// What a chunk of a panel adds: sums += scale * x_scale * sum of (code - zero) * x, and the offset.
struct Int8Chunk {
  const uint8_t* codes;  // units; a code panel but where they are multiplied as they are stored
  int64_t columns;
  const float* scale;   // [64]
  const int32_t* zero;  // [64], Int8Group::zero_halves
  const float* offset;  // [64] or null
};

// Side values of consecutive rows of x.
struct Int8Sides {
  const int32_t* sum;
  const float* scale;
  const float* total;
};

// Where x of the first row of a chunk lies; rows are 2 * width apart, low planes width behind.
struct Int8Rows {
  const int8_t* x;
  int64_t width;
  Int8Sides sides;
};

LOWBIT_INLINE Int8Rows int8_rows(const LinearPass& pass, int64_t chunk, int64_t row) {
  const int64_t index = x_row_index(pass, chunk, row);
  return {reinterpret_cast<const int8_t*>(x_row(pass, chunk, row)),
          pass.chunks.width,
          {pass.x_sum + index, pass.x_scale + index, pass.x_total + index}};
}

// What the rows of x share in a vector of outputs. It is taken out of their loops: the compiler
// must think that a store may change it.
struct Int8Columns {
  I32 zero;
  F32 scale, offset;
  bool has_offset;
};

LOWBIT_INLINE Int8Columns int8_columns(const Int8Chunk& chunk, int v) {
  return {load_i32(chunk.zero + v * kLanes), load(chunk.scale + v * kLanes),
          chunk.offset ? load(chunk.offset + v * kLanes) : splat(0.0f), chunk.offset != nullptr};
}

// Adds one vector of outputs of row r, given the sums over both planes.
LOWBIT_INLINE void add_products(const Int8Columns& columns, const Int8Sides& x, int64_t r, I32 high,
                                I32 low, float* sum) {
  I32 total = add_i32(shift_left<7>(high), low);
  total = dot_halves(total, columns.zero, splat_i32(x.sum[r]));
  const F32 scaled = mul(to_float(total), splat(x.scale[r]));
  F32 result = fma(scaled, columns.scale, load(sum));
  if (columns.has_offset) result = fma(splat(x.total[r]), columns.offset, result);
  store(sum, result);
}

// Sums over both planes of some rows, and some vectors of outputs.
template <int kRows, int kColumnVectors>
struct PlaneSums {
  I32 high[kRows][kColumnVectors], low[kRows][kColumnVectors];
};

template <typename Unit, int kQuad, int kRows, int kColumnVectors>
LOWBIT_INLINE void multiply_quad(const uint8_t* unit, const int8_t* x, int64_t width,
                                 PlaneSums<kRows, kColumnVectors>& sums) {
  Codes w[kColumnVectors];
  LOWBIT_UNROLL
  for (int v = 0; v < kColumnVectors; ++v) {
    w[v] = dot_codes(Unit::template quad<kQuad>(unit + v * 64));
  }
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int8_t* x_row = x + r * 2 * width + kQuad * 4;
    const Quad high_quad = dot_quad(x_row), low_quad = dot_quad(x_row + width);
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) {
      sums.high[r][v] = dot(sums.high[r][v], w[v], high_quad);
      sums.low[r][v] = dot(sums.low[r][v], w[v], low_quad);
    }
  }
}

template <typename Unit, int kRows, int kColumnVectors, int... kQuads>
LOWBIT_INLINE void multiply_unit(const uint8_t* unit, const int8_t* x, int64_t width,
                                 PlaneSums<kRows, kColumnVectors>& sums,
                                 std::integer_sequence<int, kQuads...>) {
  (multiply_quad<Unit, kQuads>(unit, x, width, sums), ...);
}

// The last unit may have columns behind those of the chunk. Their products are zero: of a stored
// unit the codes are zeros there, whatever is read as x (up to 16 bytes behind its row); of a code
// panel x is.
template <typename Unit, int kRows, int kColumnVectors>
LOWBIT_INLINE void multiply_tile(const Int8Chunk& chunk, const Int8Rows& rows, int64_t row, int v0,
                                 float* sums) {
  PlaneSums<kRows, kColumnVectors> planes;
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) planes.high[r][v] = planes.low[r][v] = splat_i32(0);
  }
  const int8_t* x = rows.x + row * 2 * rows.width;
  const uint8_t* unit = chunk.codes;
  for (int64_t left = chunk.columns; left > 0; left -= Unit::kColumns) {
    if (v0 == 0) Unit::fetch(unit);
    multiply_unit<Unit>(unit + v0 * 64, x, rows.width, planes, UnitQuads<Unit>());
    unit += Unit::kBytes;
    x += Unit::kColumns;
  }
  LOWBIT_UNROLL
  for (int v = 0; v < kColumnVectors; ++v) {
    const Int8Columns columns = int8_columns(chunk, v0 + v);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      add_products(columns, rows.sides, row + r, planes.high[r][v], planes.low[r][v],
                   sums + (row + r) * kPanelRows + (v0 + v) * kLanes);
    }
  }
}

template <typename Unit, int kRows>
inline void multiply_rows(const Int8Chunk& chunk, const Int8Rows& rows, int64_t row, int64_t end,
                          float* sums) {
  for (; row + kRows <= end; row += kRows) {
    for (int v = 0; v < kVectors; v += kDotVectors) {
      multiply_tile<Unit, kRows, kDotVectors>(chunk, rows, row, v, sums);
    }
  }
  if constexpr (kRows > 1) multiply_rows<Unit, kRows - 1>(chunk, rows, row, end, sums);
}

// ---- tasks ----

// The scales of a group, those of each plane of a table, and its zeros.
struct Int8Group {
  PanelGroup values;
  alignas(64) float plane_scale[2][kPanelRows];
  IntegerZeros zeros;
  alignas(64) int32_t zero_halves[kPanelRows];  // -128 * zero and -zero, for dot_halves with x_sum
};

struct Int8Scratch {
  alignas(64) uint8_t codes[kCodePanelBytes] = {};
  alignas(64) uint8_t gathered[kCodePanelBytes];
  alignas(64) uint8_t looked_up[kCodePanelBytes];
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  Int8Group group[2];  // this and the one before, whose sums may be pending
};

inline void pair_zeros(const int32_t* zero, int32_t* halves) {
  for (int v = 0; v < kVectors; ++v) {
    const I32 negative = sub_i32(splat_i32(0), load_i32(zero + v * kLanes));
    const I32 high = bit_and(shift_left<7>(negative), splat_i32(0xffff));
    store_i32(halves + v * kLanes, bit_or(high, shift_left<16>(negative)));
  }
}

inline void load_group_int8x2(const WeightView& w, const Step& step, Int8Group& group) {
  load_panel_group(w, step.task.panel, step.chunk.group, group.values);
  if (w.table) {
    offsets_of_zeros(w, group.values, group.zeros.offset);
    std::fill_n(group.zeros.zero, kPanelRows, 128);
  } else {
    split_zeros(w, group.values, group.zeros);
  }
  pair_zeros(group.zeros.zero, group.zero_halves);
}

// multiply(chunk, slices) for the codes as they are, or for every plane of the table; slices only
// with the last one, when the codes are no longer needed.
template <typename Slices, typename Multiply>
LOWBIT_INLINE void multiply_planes(const WeightView& w, const IntegerTable& table,
                                   const uint8_t* codes, int64_t columns, Int8Group& group,
                                   uint8_t* looked_up, Slices& slices, const Multiply& multiply) {
  const float* offset = has_offsets(w) ? group.zeros.offset : nullptr;
  if (!w.table) {
    multiply(Int8Chunk{codes, columns, group.values.scale, group.zero_halves, offset}, slices);
    return;
  }
  Slices none = slices.none();
  for (int plane = 0; plane < table.planes; ++plane) {
    lookup_panel(codes, columns, table.plane[plane], looked_up);
    float* scale = group.plane_scale[plane];
    for (int v = 0; v < kVectors; ++v) {
      store(scale + v * kLanes,
            mul(load(group.values.scale + v * kLanes), splat(table.factor[plane])));
    }
    const bool last = plane + 1 == table.planes;
    const Int8Chunk chunk{looked_up, columns, scale, group.zero_halves, last ? offset : nullptr};
    multiply(chunk, last ? slices : none);
  }
}

// The tasks of a thread. multiply(chunk, x rows, number of rows, sums, slices) does the products;
// finish() those of its additions to the sums that it has put off.
template <typename Multiply, typename Finish>
LOWBIT_INLINE void int8x2_tasks(const LinearPass& pass, TaskQueue& queue, int64_t tile_columns,
                                const Multiply& multiply, const Finish& finish) {
  const WeightView& w = pass.params->weight;
  const IntegerTable table = w.table ? integer_table(w) : IntegerTable{};
  Int8Scratch s;
  Int8Group* group = &s.group[0];
  const DecodedPanel decoded{s.codes, kQuadBytes, s.gathered};
  const auto decode = LOWBIT_FOR_UNITS(w.format, unpack_units);
  walk_ahead(pass, queue, decoded, decode, [&](const Step& step, auto& slices) {
    const auto& [task, chunk, first, last, first_of_group] = step;
    if (first) begin_task(pass, task, s.sums);
    if (first_of_group) {
      group = &s.group[group == &s.group[0]];
      load_group_int8x2(w, step, *group);
    }
    const int64_t columns = ceil_div(chunk.columns, tile_columns) * tile_columns;
    const Int8Rows rows = int8_rows(pass, chunk.index, task.row);
    multiply_planes(w, table, s.codes, columns, *group, s.looked_up, slices,
                    [&](const Int8Chunk& products, auto& between) {
                      multiply(products, rows, task.rows, s.sums, between);
                    });
    if (!last) return;
    finish();
    end_task(pass, task, s.sums);
  });
}

inline void multiply_int8x2(const LinearPass& pass, TaskQueue& queue) {
  const auto multiply = [](const Int8Chunk& chunk, const Int8Rows& rows, int64_t count, float* sums,
                           auto&) {
    multiply_rows<PanelUnit, kDotRows>(chunk, rows, 0, count, sums);
  };
  int8x2_tasks(pass, queue, 4, multiply, [] {});
}

// ---- few rows: codes are multiplied as they are stored ----

template <typename Unit>
inline void multiply_stored_int8x2(const LinearPass& pass, TaskQueue& queue) {
  const WeightView& w = pass.params->weight;
  alignas(64) float sums[kDotRows * kPanelRows];
  const StoredUnits stored_units(w);
  Int8Group group;
  const float* offset = has_offsets(w) ? group.zeros.offset : nullptr;
  ChunkWalk walk(pass, queue);
  for (Step step{}; walk.next(step);) {
    const auto& [task, chunk, first, last, first_of_group] = step;
    if (first) begin_task(pass, task, sums);
    if (first_of_group) load_group_int8x2(w, step, group);
    const uint8_t* codes = stored_units(task.panel, chunk).units;
    multiply_rows<Unit, kDotRows>(
        Int8Chunk{codes, chunk.columns, group.values.scale, group.zero_halves, offset},
        int8_rows(pass, chunk.index, task.row), 0, task.rows, sums);
    if (last) end_task(pass, task, sums);
  }
}

// The kernel for `rows` rows of x.
inline MultiplyTasks choose_multiply_int8x2(const WeightView& w, int64_t rows) {
  const bool stored = rows <= kDotRows && !w.table && w.format.layout == WeightLayout::kPanels;
  return stored ? LOWBIT_FOR_BITS(w.format.bits, multiply_stored_int8x2) : multiply_int8x2;
}
