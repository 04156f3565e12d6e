// The register tile of fp32 products.

// acc[r][v] = sum over i < depth of a[r * a_stride + i] * b[i * b_stride + 16 * v + lane]: each a
// chain of fma from 0, i ascending.
template <int kRows, int kColumnVectors>
LOWBIT_INLINE void dot_tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                            int64_t depth, F32 (&acc)[kRows][kColumnVectors]) {
  LOWBIT_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) acc[r][v] = splat(0.0f);
  }
  for (int64_t i = 0; i < depth; ++i) {
    F32 row[kColumnVectors];
    LOWBIT_UNROLL
    for (int v = 0; v < kColumnVectors; ++v) row[v] = load_once(b + i * b_stride + v * kLanes);
    LOWBIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const F32 factor = splat(a[r * a_stride + i]);
      LOWBIT_UNROLL
      for (int v = 0; v < kColumnVectors; ++v) acc[r][v] = fma(factor, row[v], acc[r][v]);
    }
  }
}
