// weight_only_linear: out[m, n] = sum over k of x[m, k] * w[n, k] + bias[n], in fp32, rounded once.
#pragma once

#include "weight_format.h"

namespace lowbit {

// How x enters the products.
enum class LinearMode : int32_t { kExact = 0, kBFloat16 = 1, kFloat16 = 2 };

struct WeightOnlyLinearParams {
  WeightView weight;
  int64_t m;
  const void* x;  // [m, k], rows dense
  int64_t x_stride;
  ElementType x_type;  // float32, float16 or bfloat16; also that of out
  const void* bias;    // element i at i * bias_stride, or null
  int64_t bias_stride;
  ElementType bias_type;
  void* out;  // [m, n], dense
  LinearMode mode;
};

namespace cpu {

// Weight rows of one task, and the most x rows of one: their partial sums lie on the stack.
inline constexpr int kLinearColumns = 8;
inline constexpr int64_t kLinearRows = 64;

// Rows [first_row, first_row + rows) of x, converted to fp32, and how they are cut into tasks.
struct LinearPass {
  const WeightOnlyLinearParams* params;
  float* packed;  // rows * k rounded up to 16
  int64_t first_row;
  int64_t rows;
  int64_t task_rows;  // x rows of a task, at most kLinearRows
};

}  // namespace cpu

}  // namespace lowbit
