// bfloat16 products with fp32 sums: x rounded once, codes exact, table entries rounded. Zeros are
// left to the end of a chunk: w = scale * number + offset. Pairs are columns (0, 2) and (1, 3) of a
// quad, because that is how the bytes of a code panel split into words.

#include "linear_panel.inl"

inline constexpr int64_t kPairBytes = kPanelRows * 4;  // one pair of columns of all 64 rows

// ---- x ----

// One row of one chunk, and its sum.
inline void pack_chunk_bf16(const LinearPass& pass, int64_t c, int64_t row, const float* x,
                            uint16_t* out) {
  F32 total = splat(0.0f);
  for (int64_t k = 0; k < pass.chunks.width; k += kLanes) {
    total = add(total, store_pairs(out + k, load(x + k)));
  }
  pass.x_total[x_row_index(pass, c, row)] = sum(total);
}

inline void pack_rows_bf16(const LinearPass& pass, int64_t begin, int64_t end) {
  for_each_x(pass, begin, end, [&](int64_t c, int64_t row, const float* x) {
    pack_chunk_bf16(pass, c, row, x, reinterpret_cast<uint16_t*>(x_row(pass, c, row)));
  });
}

// ---- panels ----

// The numbers that codes of at most 4 bits stand for, repeated to 32 entries: bits above an index
// do not matter.
LOWBIT_INLINE WordTable rounded_numbers(const WeightView& w) {
  uint16_t entries[32];
  for (int i = 0; i < 32; ++i) {
    const int code = i % (1 << std::min(w.format.bits, kMaxTableBits));
    entries[i] = float_to_bfloat16(w.table ? w.table[code] : static_cast<float>(code));
  }
  return load_word_table(entries);
}

// Quads of codes as two rows of pairs each: codes of at most 4 bits by the table, others converted.
template <typename Unit, int... kQuads>
LOWBIT_INLINE void unit_to_bf16(const uint8_t* unit, WordTable table, bool look_up, uint8_t* panel,
                                std::integer_sequence<int, kQuads...>) {
  const I32 low_bytes = splat_i32(0x00ff00ff);
  const auto put = [&](I32 quad, uint8_t* out) {
    const I32 odd = shift_right<8>(quad);
    store_i32(out, look_up ? lookup_words(table, quad) : words_to_bf16(bit_and(quad, low_bytes)));
    store_i32(out + kPairBytes,
              look_up ? lookup_words(table, odd) : words_to_bf16(bit_and(odd, low_bytes)));
  };
  LOWBIT_UNROLL
  for (int j = 0; j < kVectors; ++j) {
    (put(Unit::template loose_quad<kQuads>(unit + j * 64),
         panel + kQuads * 2 * kPairBytes + j * 64),
     ...);
  }
}

// `count` units into a panel.
template <typename Unit>
inline void units_to_bf16(const uint8_t* units, int64_t count, WordTable table, bool look_up,
                          uint8_t* panel) {
  for (; count > 0; --count) {
    Unit::fetch(units);
    unit_to_bf16<Unit>(units, table, look_up, panel, UnitQuads<Unit>());
    units += Unit::kBytes;
    panel += Unit::kColumns / 2 * kPairBytes;
  }
}

// Columns [begin, end) become zeros.
inline void clear_columns(int64_t begin, int64_t end, uint8_t* panel) {
  for (int64_t k = begin; k < end; ++k) {
    uint8_t* word = panel + (k / 4 * 2 + k % 2) * kPairBytes + k % 4 / 2 * 2;
    for (int64_t r = 0; r < kPanelRows; ++r) std::memset(word + r * 4, 0, 2);
  }
}

// ---- products ----

struct Bf16Chunk {
  const uint8_t* panel;
  int64_t columns;
  const float* scale;   // [64]
  const float* offset;  // [64] or null
};

struct Bf16Rows {
  const uint16_t* x;  // rows are width apart
  int64_t width;
  const float* total;
};

// What the rows of x share in a vector of outputs, as Int8Columns.
struct Bf16Columns {
  F32 scale, offset;
  bool has_offset;
};

LOWBIT_INLINE Bf16Columns bf16_columns(const Bf16Chunk& chunk, int v) {
  return {load(chunk.scale + v * kLanes),
          chunk.offset ? load(chunk.offset + v * kLanes) : splat(0.0f), chunk.offset != nullptr};
}

LOWBIT_INLINE void add_bf16_products(const Bf16Columns& columns, const float* x_total, F32 products,
                                     float* sum) {
  F32 result = fma(products, columns.scale, load(sum));
  if (columns.has_offset) result = fma(splat(*x_total), columns.offset, result);
  store(sum, result);
}

template <int kRows>
LOWBIT_INLINE void multiply_bf16_tile(const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t row,
                                      float* sums) {
  F32 acc[kRows][kVectors];
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kVectors; ++v) acc[r][v] = splat(0.0f);
  }
  const uint16_t* x = rows.x + row * rows.width;
  for (int64_t k = 0; k < chunk.columns; k += 2) {
    I32 w[kVectors];
    LOWBIT_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = load_i32(chunk.panel + k / 2 * kPairBytes + v * 64);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * rows.width + k, sizeof pair);
      LOWBIT_UNROLL
      for (int v = 0; v < kVectors; ++v) acc[r][v] = dot_bf16(acc[r][v], w[v], splat_i32(pair));
    }
  }
  LOWBIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const Bf16Columns columns = bf16_columns(chunk, v);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      add_bf16_products(columns, rows.total + row + r, acc[r][v],
                        sums + (row + r) * kPanelRows + v * kLanes);
    }
  }
}

template <int kRows>
inline void multiply_bf16_rows(const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t row,
                               int64_t end, float* sums) {
  for (; row + kRows <= end; row += kRows) multiply_bf16_tile<kRows>(chunk, rows, row, sums);
  if constexpr (kRows > 1) multiply_bf16_rows<kRows - 1>(chunk, rows, row, end, sums);
}

// ---- tasks ----

// The scales of a group and its zeros as offsets.
struct Bf16Group {
  PanelGroup values;
  alignas(64) float offset[kPanelRows];
};

struct Bf16Scratch {
  alignas(64) uint8_t gathered[kCodePanelBytes];
  alignas(64) uint8_t panel[2 * kCodePanelBytes] = {};
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  Bf16Group group[2];  // this and the one before, whose sums may be pending
};

// The tasks of a thread. multiply(chunk, x rows, number of rows, sums, slices) does the products;
// finish() those of its additions to the sums that it has put off.
template <typename Multiply, typename Finish>
LOWBIT_INLINE void bf16_tasks(const LinearPass& pass, TaskQueue& queue, int64_t tile_columns,
                              const Multiply& multiply, const Finish& finish) {
  const WeightView& w = pass.params->weight;
  const WordTable table = rounded_numbers(w);
  const bool has_zeros = w.format.zero_kind != ZeroKind::kNone;
  const bool look_up = w.format.bits <= kMaxTableBits;
  const auto units_to_panel = LOWBIT_FOR_UNITS(w.format, units_to_bf16);
  const auto decode = [=](const uint8_t* units, int64_t count, uint8_t* out) {
    units_to_panel(units, count, table, look_up, out);
  };
  Bf16Scratch s;
  Bf16Group* group = &s.group[0];
  const DecodedPanel decoded{s.panel, 2 * kPairBytes, s.gathered};
  walk_ahead(pass, queue, decoded, decode, [&](const Step& step, auto& slices) {
    const auto& [task, chunk, first, last, first_of_group] = step;
    if (first) begin_task(pass, task, s.sums);
    if (first_of_group) {
      group = &s.group[group == &s.group[0]];
      load_panel_group(w, task.panel, chunk.group, group->values);
      offsets_of_zeros(w, group->values, group->offset);
    }
    const int64_t columns = ceil_div(chunk.columns, tile_columns) * tile_columns;
    // x is zero there, but infinity and NaN of a table would still make NaN.
    if (w.table) clear_columns(chunk.columns, columns, s.panel);
    const int64_t index = x_row_index(pass, chunk.index, task.row);
    multiply(Bf16Chunk{s.panel, columns, group->values.scale, has_zeros ? group->offset : nullptr},
             Bf16Rows{reinterpret_cast<const uint16_t*>(x_row(pass, chunk.index, task.row)),
                      pass.chunks.width, pass.x_total + index},
             task.rows, s.sums, slices);
    if (!last) return;
    finish();
    end_task(pass, task, s.sums);
  });
}

inline void multiply_bf16(const LinearPass& pass, TaskQueue& queue) {
  const auto multiply = [](const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t count, float* sums,
                           auto&) { multiply_bf16_rows<6>(chunk, rows, 0, count, sums); };
  bf16_tasks(pass, queue, 4, multiply, [] {});
}
