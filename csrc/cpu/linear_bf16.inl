// bfloat16 products with fp32 sums: x rounded once, codes exact, table entries rounded. Zeros are
// left to the end of a chunk: w = scale * number + offset. Pairs are columns (0, 2) and (1, 3) of a
// quad, because that is how the bytes of a code panel split into words.

#include "linear_panel.inl"

inline constexpr int64_t kPairBytes = kPanelRows * 4;  // one pair of columns of all 64 rows

// ---- x ----

// Columns 0 1 2 3 of every quad -> 0 2 1 3.
LOWBIT_INLINE void order_pairs(uint16_t* x, int64_t width) {
  for (int64_t k = 0; k < width; k += 4) std::swap(x[k + 1], x[k + 2]);
}

// One row of one chunk, and its sum.
inline void pack_chunk_bf16(const LinearPass& pass, int64_t c, int64_t row, const float* x,
                            uint16_t* out) {
  F32 total = splat(0.0f);
  for (int64_t k = 0; k < pass.chunks.width; k += kLanes) {
    store_bf16(out + k, load(x + k));
    total = add(total, load_bf16(out + k));
  }
  pass.x_total[x_row_index(pass, c, row)] = sum(total);
  order_pairs(out, pass.chunks.width);
}

inline void pack_rows_bf16(const LinearPass& pass, int64_t begin, int64_t end) {
  const WeightFormat& f = pass.params->weight.format;
  alignas(64) float x[kMaxChunkColumns];
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      load_x(pass, row, chunk_at(pass.chunks, f, c), x);
      pack_chunk_bf16(pass, c, row, x, reinterpret_cast<uint16_t*>(x_row(pass, c, row)));
    }
  }
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

// A quad of codes into two rows of pairs.
inline void look_up_panel(WordTable table, const uint8_t* codes, int64_t columns, uint8_t* panel) {
  for (int64_t i = 0; i < columns / 4 * kVectors; ++i) {
    const I32 quad = load_i32(codes + i * 64);
    uint8_t* out = panel + i / kVectors * 2 * kPairBytes + i % kVectors * 64;
    store_i32(out, lookup_words(table, quad));
    store_i32(out + kPairBytes, lookup_words(table, shift_right<8>(quad)));
  }
}

inline void convert_panel(const uint8_t* codes, int64_t columns, uint8_t* panel) {
  const I32 low_bytes = splat_i32(0x00ff00ff);
  for (int64_t i = 0; i < columns / 4 * kVectors; ++i) {
    const I32 quad = load_i32(codes + i * 64);
    uint8_t* out = panel + i / kVectors * 2 * kPairBytes + i % kVectors * 64;
    store_i32(out, words_to_bf16(bit_and(quad, low_bytes)));
    store_i32(out + kPairBytes, words_to_bf16(bit_and(shift_right<8>(quad), low_bytes)));
  }
}

// 4-bit codes of the panels layout at once: a vector holds two quads, one in each half of a byte.
inline const uint8_t* unpack_bf16(const WeightView& w, WordTable table, int64_t panel,
                                  const Chunk& chunk, uint8_t* out) {
  const uint8_t* unit = chunk_units<4>(w, panel, chunk);
  for (int64_t left = chunk.columns; left > 0; left -= 8) {
    LOWBIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const I32 codes = load_i32(unit + v * 64);
      store_i32(out + v * 64, lookup_words(table, codes));
      store_i32(out + v * 64 + kPairBytes, lookup_words(table, shift_right<8>(codes)));
      store_i32(out + v * 64 + 2 * kPairBytes, lookup_words(table, shift_right<4>(codes)));
      store_i32(out + v * 64 + 3 * kPairBytes, lookup_words(table, shift_right<12>(codes)));
    }
    unit += kQuadBytes;
    out += 4 * kPairBytes;
  }
  return unit;
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
  NextCodes next;
};

struct Bf16Rows {
  const uint16_t* x;  // rows are width apart
  int64_t width;
  const float* total;
};

LOWBIT_INLINE void add_bf16_products(const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t row,
                                     int v, F32 products, float* sums) {
  float* sum = sums + row * kPanelRows + v * kLanes;
  F32 result = fma(products, load(chunk.scale + v * kLanes), load(sum));
  if (chunk.offset) {
    result = fma(splat(rows.total[row]), load(chunk.offset + v * kLanes), result);
  }
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
    if (row == 0) chunk.next.fetch(k, 2);
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
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kVectors; ++v) add_bf16_products(chunk, rows, row + r, v, acc[r][v], sums);
  }
}

template <int kRows>
inline void multiply_bf16_rows(const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t row,
                               int64_t end, float* sums) {
  for (; row + kRows <= end; row += kRows) multiply_bf16_tile<kRows>(chunk, rows, row, sums);
  if constexpr (kRows > 1) multiply_bf16_rows<kRows - 1>(chunk, rows, row, end, sums);
}

// ---- tasks ----

struct Bf16Scratch {
  alignas(64) uint8_t codes[kCodePanelBytes] = {};
  alignas(64) uint8_t panel[2 * kCodePanelBytes] = {};
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  alignas(64) float offset[kPanelRows];
  PanelGroup group;
};

// Fills s.panel with `columns` columns, those behind the chunk's with any numbers, and returns the
// codes of the next chunk.
inline const uint8_t* fill_bf16(const WeightView& w, FillCodes fill_codes, WordTable table,
                                int64_t panel, const Chunk& chunk, int64_t columns,
                                Bf16Scratch& s) {
  if (w.format.bits == 4 && w.format.layout == WeightLayout::kPanels) {
    return unpack_bf16(w, table, panel, chunk, s.panel);
  }
  const uint8_t* next = fill_codes(w, panel, chunk, s.codes);
  if (w.format.bits <= kMaxTableBits) {
    look_up_panel(table, s.codes, columns, s.panel);
  } else {
    convert_panel(s.codes, columns, s.panel);
  }
  return next;
}

// Tasks [begin, end); multiply(chunk, x rows, number of rows, sums) does the products.
template <typename Multiply>
LOWBIT_INLINE void bf16_tasks(const LinearPass& pass, int64_t begin, int64_t end,
                              int64_t column_step, const Multiply& multiply) {
  const WeightView& w = pass.params->weight;
  const FillCodes fill_codes = fill_codes_for(w.format);
  const WordTable table = rounded_numbers(w);
  Bf16Scratch s;
  const float* offset = w.format.zero_kind == ZeroKind::kNone ? nullptr : s.offset;
  for (int64_t index = begin; index < end; ++index) {
    const LinearTask task = linear_task(pass, index);
    std::memset(s.sums, 0, static_cast<size_t>(task.rows) * kPanelRows * sizeof(float));
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      const Chunk chunk = chunk_at(pass.chunks, w.format, c);
      if (c % pass.chunks.per_group == 0) {
        load_panel_group(w, task.panel, chunk.group, s.group);
        offsets_of_zeros(w, s.group, s.offset);
      }
      const int64_t columns = ceil_div(chunk.columns, column_step) * column_step;
      const uint8_t* next = fill_bf16(w, fill_codes, table, task.panel, chunk, columns, s);
      // x is zero there, but infinity and NaN of a table would still make NaN.
      if (w.table) clear_columns(chunk.columns, columns, s.panel);
      const int64_t first = x_row_index(pass, c, task.row);
      multiply(Bf16Chunk{s.panel, columns, s.group.scale, offset, next_codes(w, next)},
               Bf16Rows{reinterpret_cast<const uint16_t*>(x_row(pass, c, task.row)),
                        pass.chunks.width, pass.x_total + first},
               task.rows, s.sums);
    }
    finish_task(pass, task, s.sums);
  }
}

inline void multiply_bf16(const LinearPass& pass, int64_t begin, int64_t end) {
  bf16_tasks(pass, begin, end, 4,
             [](const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t count, float* sums) {
               multiply_bf16_rows<6>(chunk, rows, 0, count, sums);
             });
}
