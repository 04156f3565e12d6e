// The low-rank term of weight_only_linear: addend[m, n] = sum over r of (x[m] . a[r]) * b[n, r].
#pragma once

#include "../weight_only_linear.h"

namespace lowbit::cpu {

// A dense matrix, its rows dense.
struct DenseView {
  const void* data;
  int64_t rows, columns;
  int64_t stride;
  ElementType type;
};

// x[m, k] and both factors a[r, k], b[n, r]; all sums in fp32.
struct LowRankParams {
  DenseView x, a, b;
  float* x_floats;  // [m, k rounded up to 16]
  float* inner;     // [m, r]
  float* addend;    // [m, n]
};

// On torch's threads. Row i does not depend on the others.
void low_rank(const LowRankParams& p);

}  // namespace lowbit::cpu
