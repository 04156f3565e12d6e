// Kernel text of the low-rank term. x . a adds 16 lanes of columns, lane by lane; the product with
// b has an output in every lane.

#include "decode_weight.inl"

inline constexpr int64_t kFactorRows = 4;  // rows of a of one task
inline constexpr int kXRows = 4;           // rows of x whose sums stay in registers

inline void convert_rows(const LowRankParams& p, int64_t begin, int64_t end) {
  const int64_t width = round_up_lanes(p.x.columns);
  for (int64_t row = begin; row < end; ++row) {
    load_elements(p.x.type, p.x.data, row * p.x.stride, p.x.columns, p.x_floats + row * width);
  }
}

// Dot products of kRows rows of x with kFactorRows rows of a, all `width` floats long.
template <int kRows>
LOWBIT_INLINE void dot_rows(const float* x, const float* a, int64_t width, int64_t factors,
                            float* inner, int64_t inner_stride) {
  F32 acc[kRows][kFactorRows];
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int f = 0; f < kFactorRows; ++f) acc[r][f] = splat(0.0f);
  }
  for (int64_t k = 0; k < width; k += kLanes) {
    LOWBIT_UNROLL
    for (int f = 0; f < kFactorRows; ++f) {
      const F32 factor = load_once(a + f * width + k);
      LOWBIT_UNROLL
      for (int r = 0; r < kRows; ++r) acc[r][f] = fma(load(x + r * width + k), factor, acc[r][f]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int f = 0; f < factors; ++f) inner[r * inner_stride + f] = sum(acc[r][f]);
  }
}

// Tasks are blocks of kFactorRows rows of a; `scratch` has room for one in fp32.
inline void inner_products(const LowRankParams& p, float* scratch, int64_t begin, int64_t end) {
  const int64_t width = round_up_lanes(p.x.columns);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * kFactorRows;
    const int64_t factors = at_most(kFactorRows, p.a.rows - first);
    std::memset(scratch, 0, static_cast<size_t>(kFactorRows * width) * sizeof(float));
    for (int64_t f = 0; f < factors; ++f) {
      load_elements(p.a.type, p.a.data, (first + f) * p.a.stride, p.a.columns, scratch + f * width);
    }
    int64_t row = 0;
    for (; row + kXRows <= p.x.rows; row += kXRows) {
      dot_rows<kXRows>(p.x_floats + row * width, scratch, width, factors,
                       p.inner + row * p.a.rows + first, p.a.rows);
    }
    for (; row < p.x.rows; ++row) {
      dot_rows<1>(p.x_floats + row * width, scratch, width, factors,
                  p.inner + row * p.a.rows + first, p.a.rows);
    }
  }
}

// b of 16 outputs as [r][16].
inline void transpose_block(const LowRankParams& p, int64_t column, int64_t columns, float* out) {
  float row[kLanes];
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < p.b.columns; r += kLanes) {
      const int64_t count = at_most(kLanes, p.b.columns - r);
      load_elements(p.b.type, p.b.data, (column + c) * p.b.stride + r, count, row);
      for (int64_t i = 0; i < count; ++i) out[(r + i) * kLanes + c] = row[i];
    }
  }
}

template <int kRows>
LOWBIT_INLINE void expand_rows(const float* inner, int64_t rank, const float* b, F32* out) {
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) out[r] = splat(0.0f);
  for (int64_t j = 0; j < rank; ++j) {
    const F32 factor = load(b + j * kLanes);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) out[r] = fma(splat(inner[r * rank + j]), factor, out[r]);
  }
}

// Tasks are blocks of 16 outputs; `scratch` has room for 16 * rank floats.
inline void outer_products(const LowRankParams& p, float* scratch, int64_t begin, int64_t end) {
  const int64_t n = p.b.rows, rank = p.b.columns;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t column = task * kLanes;
    const int64_t columns = at_most(kLanes, n - column);
    std::memset(scratch, 0, static_cast<size_t>(rank * kLanes) * sizeof(float));
    transpose_block(p, column, columns, scratch);
    F32 block[kXRows];
    float values[kLanes];
    for (int64_t row = 0; row < p.x.rows; row += kXRows) {
      const int64_t rows = at_most(kXRows, p.x.rows - row);
      if (rows == kXRows) expand_rows<kXRows>(p.inner + row * rank, rank, scratch, block);
      for (int64_t r = 0; r < rows; ++r) {
        if (rows < kXRows) expand_rows<1>(p.inner + (row + r) * rank, rank, scratch, block + r);
        store(values, block[r]);
        std::memcpy(p.addend + (row + r) * n + column, values,
                    static_cast<size_t>(columns) * sizeof(float));
      }
    }
  }
}
