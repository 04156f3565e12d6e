// Kernel text of weight_only_linear_backward. Rows of grad are the lanes: an output is one chain of
// fma over the 64 rows of a panel of the weight, and the panels are added in ascending order. So
// its bits depend neither on the other rows, nor on threads, nor on the instruction set.

#include "dot_tile.inl"
#include "panel.inl"

// Vectors of rows of a tile, and its columns, which divide kSpanColumns.
inline constexpr int kStripVectors = kRegisters >= 32 ? 3 : 1;
constexpr int tile_columns(int vectors) {
  return kRegisters < 8 ? 1 : kRegisters < 32 ? 4 : vectors == 1 ? 16 : 8;
}

// ---- grad ----

// Rows of grad from `row` on that lie side by side, padding included.
LOWBIT_INLINE int64_t strip_width(const BackwardPass& pass, int64_t row) {
  return at_most(kStripRows, pass.padded_rows - row);
}

LOWBIT_INLINE int64_t rows_of_panel(const WeightFormat& f, int64_t panel) {
  return at_most(kPanelRows, f.n - panel * kPanelRows);
}

// grad of the rows from `row` on and of a panel, as [row of the panel][strip_width].
LOWBIT_INLINE float* grad_strip(const BackwardPass& pass, int64_t panel, int64_t row) {
  const WeightFormat& f = pass.params->weight.format;
  return pass.grad + panel * kPanelRows * pass.padded_rows + row * rows_of_panel(f, panel);
}

// Transposes; task t is panel t % panels of strip t / panels.
inline void pack_grad(const BackwardPass& pass, int64_t begin, int64_t end) {
  const WeightOnlyLinearBackwardParams& p = *pass.params;
  const int64_t panels = panel_count(p.weight.format);
  float line[kPanelRows];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t panel = task % panels;
    const int64_t row = task / panels * kStripRows;
    const int64_t width = strip_width(pass, row);
    const int64_t count = rows_of_panel(p.weight.format, panel);
    float* out = grad_strip(pass, panel, row);
    for (int64_t r = 0; r < width; ++r) {
      if (row + r < pass.rows) {
        const int64_t first = (pass.first_row + row + r) * p.grad_stride + panel * kPanelRows;
        load_elements(p.type, p.grad, first, count, line);
      } else {
        std::memset(line, 0, sizeof line);
      }
      for (int64_t i = 0; i < count; ++i) out[i * width + r] = line[i];
    }
  }
}

// ---- weight ----

// Chunks [begin, end) of a task; they follow each other in the columns from k0 on.
struct Span {
  int64_t begin, end;
  int64_t k0;
  int64_t columns;
};

LOWBIT_INLINE Span span_at(const BackwardPass& pass, int64_t index) {
  const WeightFormat& f = pass.params->weight.format;
  const int64_t begin = index * pass.span_chunks;
  const int64_t end = at_most(begin + pass.span_chunks, pass.chunks.count);
  const int64_t k0 = chunk_at(pass.chunks, f, begin).k0;
  const Chunk last = chunk_at(pass.chunks, f, end - 1);
  return {begin, end, k0, last.k0 + last.columns - k0};
}

struct BackwardScratch {
  alignas(64) uint8_t codes[kCodePanelBytes];
  // A chunk is decoded in quads of columns; the next one overwrites what is too much.
  alignas(64) float weights[(kSpanColumns + 3) * kPanelRows];
  alignas(64) float sums[kMaxGradRows * kSpanColumns];  // [strip][column][strip_width]
  PanelGroup group;
};

// Columns of a panel in fp32, as [column][64 rows].
inline void decode_span(const BackwardPass& pass, FillCodes fill_codes, F32 table, int64_t panel,
                        const Span& span, BackwardScratch& scratch) {
  const WeightView& w = pass.params->weight;
  const auto value = [kind = w.format.zero_kind](F32 t, F32 scale, F32 zero) {
    return weight_value(t, scale, zero, kind);
  };
  for (int64_t c = span.begin; c < span.end; ++c) {
    const Chunk chunk = chunk_at(pass.chunks, w.format, c);
    load_panel_group(w, panel, chunk.group, scratch.group);
    fill_codes(w, panel, chunk, scratch.codes);
    decode_panel(w, table, scratch.codes, scratch.group, chunk.columns, value,
                 scratch.weights + (chunk.k0 - span.k0) * kPanelRows);
  }
}

// ---- products ----

// sums[column][row] += weights[column] . grad[row], for kVectors vectors of rows of a strip and
// `columns` columns rounded up to whole tiles.
template <int kRowVectors>
inline void add_products(const float* weights, int64_t columns, const float* grad, int64_t width,
                         int64_t depth, float* sums) {
  constexpr int kColumns = tile_columns(kRowVectors);
  for (int64_t c = 0; c < columns; c += kColumns) {
    F32 acc[kColumns][kRowVectors];
    dot_tile(weights + c * kPanelRows, kPanelRows, grad, width, depth, acc);
    LOWBIT_UNROLL
    for (int r = 0; r < kColumns; ++r) {
      LOWBIT_UNROLL
      for (int v = 0; v < kRowVectors; ++v) {
        float* sum = sums + (c + r) * width + v * kLanes;
        store(sum, add(load(sum), acc[r][v]));
      }
    }
  }
}

template <int kRowVectors>
inline void multiply_strip(const float* weights, int64_t columns, const float* grad, int64_t width,
                           int64_t depth, float* sums, int64_t first = 0) {
  for (; first + kRowVectors * kLanes <= width; first += kRowVectors * kLanes) {
    add_products<kRowVectors>(weights, columns, grad + first, width, depth, sums + first);
  }
  if constexpr (kRowVectors > 1) {
    multiply_strip<kRowVectors - 1>(weights, columns, grad, width, depth, sums, first);
  }
}

// ---- tasks ----

// Rounds and stores the sums of the rows [begin, end) of the pass.
inline void store_rows(const BackwardPass& pass, const Span& span, int64_t begin, int64_t end,
                       const float* sums) {
  const WeightOnlyLinearBackwardParams& p = *pass.params;
  float line[kSpanColumns] = {};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t strip = row - row % kStripRows;
    const int64_t width = strip_width(pass, strip);
    const float* column = sums + (strip - begin) * kSpanColumns + row - strip;
    for (int64_t c = 0; c < span.columns; ++c) line[c] = column[c * width];
    const int64_t first = (pass.first_row + row) * p.weight.format.k + span.k0;
    store_elements(p.type, line, span.columns, p.out, first);
  }
}

// Task t is span t % spans of row block t / spans.
inline void multiply_grad(const BackwardPass& pass, int64_t begin, int64_t end) {
  BackwardScratch scratch;
  std::memset(scratch.codes, 0, sizeof scratch.codes);
  std::memset(scratch.weights, 0, sizeof scratch.weights);
  const WeightView& w = pass.params->weight;
  const FillCodes fill_codes = fill_codes_for(w.format);
  const F32 table = w.table ? table_numbers(w) : splat(0.0f);
  for (int64_t task = begin; task < end; ++task) {
    const Span span = span_at(pass, task % pass.spans);
    const int64_t row = task / pass.spans * pass.block_rows;
    const int64_t row_end = at_most(row + pass.block_rows, pass.rows);
    const int64_t width = at_most(pass.block_rows, pass.padded_rows - row);
    std::memset(scratch.sums, 0, static_cast<size_t>(width * kSpanColumns) * sizeof(float));
    for (int64_t panel = 0; panel < panel_count(w.format); ++panel) {
      decode_span(pass, fill_codes, table, panel, span, scratch);
      for (int64_t strip = row; strip < row_end; strip += kStripRows) {
        multiply_strip<kStripVectors>(scratch.weights, span.columns, grad_strip(pass, panel, strip),
                                      strip_width(pass, strip), rows_of_panel(w.format, panel),
                                      scratch.sums + (strip - row) * kSpanColumns);
      }
    }
    store_rows(pass, span, row, row_end, scratch.sums);
  }
}
