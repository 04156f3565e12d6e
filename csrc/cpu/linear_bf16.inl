// bfloat16 products with fp32 sums: x rounded once, integer codes less their zero exact, table
// entries rounded. Pairs are columns (0, 2) and (1, 3) of a quad, because that is how the bytes of a
// code panel split into words.

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

// Small integers by their low five bits: 0..15, then -16..-1.
LOWBIT_INLINE WordTable small_integers() {
  uint16_t entries[32];
  for (int i = 0; i < 32; ++i) {
    entries[i] = float_to_bfloat16(static_cast<float>(i < 16 ? i : i - 32));
  }
  return load_word_table(entries);
}

LOWBIT_INLINE WordTable rounded_table(const WeightView& w) {
  uint16_t entries[32];
  for (int i = 0; i < 32; ++i) {
    entries[i] = float_to_bfloat16(w.table[i % (1 << w.format.bits)]);
  }
  return load_word_table(entries);
}

// The pairs of a quad of codes into two rows of the panel.
LOWBIT_INLINE void store_looked_up(uint8_t* out, WordTable table, I32 codes) {
  store_i32(out, lookup_words(table, codes));
  store_i32(out + kPairBytes, lookup_words(table, shift_right<8>(codes)));
}

LOWBIT_INLINE void store_converted(uint8_t* out, I32 codes, I32 zero_words) {
  const I32 low_bytes = splat_i32(0x00ff00ff);
  const I32 even = bit_and(codes, low_bytes);
  const I32 odd = bit_and(shift_right<8>(codes), low_bytes);
  store_i32(out, words_to_bf16(sub_words(even, zero_words)));
  store_i32(out + kPairBytes, words_to_bf16(sub_words(odd, zero_words)));
}

// How codes become bfloat16: a table that holds them, or the difference to their zero, looked up
// where it fits five bits.
enum class Bf16Decode { kTable, kSmall, kConvert };

inline Bf16Decode bf16_decode_for(const WeightView& w, const int32_t* zero) {
  if (w.table) return Bf16Decode::kTable;
  if (w.format.bits > 4) return Bf16Decode::kConvert;
  int32_t largest = 0;
  for (int64_t r = 0; r < kPanelRows; ++r) largest = zero[r] > largest ? zero[r] : largest;
  return largest <= 16 ? Bf16Decode::kSmall : Bf16Decode::kConvert;
}

template <Bf16Decode kDecode>
inline void fill_bf16_as(WordTable table, const uint8_t* codes, const int32_t* zeros,
                         int64_t columns, uint8_t* panel) {
  I32 zero[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const I32 number = load_i32(zeros + v * kLanes);
    zero[v] = bit_or(number, shift_left<16>(number));
    if (kDecode == Bf16Decode::kSmall) zero[v] = bit_or(zero[v], shift_left<8>(zero[v]));
  }
  for (int64_t k = 0; k < columns; k += 4, codes += kQuadBytes, panel += 2 * kPairBytes) {
    LOWBIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const I32 quad = load_i32(codes + v * 64);
      uint8_t* out = panel + v * 64;
      if constexpr (kDecode == Bf16Decode::kSmall) {
        store_looked_up(out, table, sub_bytes(quad, zero[v]));
      } else if constexpr (kDecode == Bf16Decode::kTable) {
        store_looked_up(out, table, quad);
      } else {
        store_converted(out, quad, zero[v]);
      }
    }
  }
}

inline void fill_bf16(Bf16Decode decode, WordTable table, const uint8_t* codes,
                      const int32_t* zeros, int64_t columns, uint8_t* panel) {
  switch (decode) {
    case Bf16Decode::kTable:
      return fill_bf16_as<Bf16Decode::kTable>(table, codes, zeros, columns, panel);
    case Bf16Decode::kSmall:
      return fill_bf16_as<Bf16Decode::kSmall>(table, codes, zeros, columns, panel);
    case Bf16Decode::kConvert:
      return fill_bf16_as<Bf16Decode::kConvert>(table, codes, zeros, columns, panel);
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
  alignas(64) uint8_t panel[2 * kCodePanelBytes];
  alignas(64) float sums[kMaxBlockRows * kPanelRows];
  PanelGroup group;
  IntegerZeros zeros;
  Bf16Decode decode;
};

inline void load_group_bf16(const WeightView& w, int64_t panel, int64_t group, Bf16Scratch& s) {
  load_panel_group(w, panel, group, s.group);
  if (w.table) {
    table_zeros(w, s.group, 0, s.zeros);
  } else {
    split_zeros(w, s.group, s.zeros);
  }
  s.decode = bf16_decode_for(w, s.zeros.zero);
}

// Tasks [begin, end); multiply(chunk, x rows, number of rows, sums) does the products.
template <typename Multiply>
LOWBIT_INLINE void bf16_tasks(const LinearPass& pass, int64_t begin, int64_t end,
                              int64_t column_step, const Multiply& multiply) {
  const WeightView& w = pass.params->weight;
  const FillCodes fill_codes = fill_codes_for(w.format);
  const WordTable table = w.table ? rounded_table(w) : small_integers();
  Bf16Scratch s;
  for (int64_t index = begin; index < end; ++index) {
    const LinearTask task = linear_task(pass, index);
    std::memset(s.sums, 0, static_cast<size_t>(task.rows) * kPanelRows * sizeof(float));
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      const Chunk chunk = chunk_at(pass.chunks, w.format, c);
      if (c % pass.chunks.per_group == 0) load_group_bf16(w, task.panel, chunk.group, s);
      fill_codes(w, task.panel, chunk, s.codes);
      const int64_t columns = ceil_div(chunk.columns, column_step) * column_step;
      fill_bf16(s.decode, table, s.codes, s.zeros.zero, columns, s.panel);
      const float* offset = has_offsets(w) ? s.zeros.offset : nullptr;
      const int64_t first = x_row_index(pass, c, task.row);
      multiply(Bf16Chunk{s.panel, columns, s.group.scale, offset},
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
