// weight_only_linear: out[m, n] = sum over k of x[m, k] * w[n, k] + addend[m, n] + bias[n], summed
// in fp32, rounded once.
#pragma once

#include "weight_format.h"

namespace lowbit {

// How x and the weight enter the products (docs/numerics.md).
enum class LinearMode : int32_t {
  kExact = 0,
  kBFloat16 = 1,
  kFloat16 = 2,
  kInt8x2 = 3,
  kDense = 4,
};

struct WeightOnlyLinearParams {
  WeightView weight;
  int64_t m;
  const void* x;  // [m, k], rows dense
  int64_t x_stride;
  ElementType x_type;   // float32, float16 or bfloat16
  const float* addend;  // [m, n], dense, or null
  const void* bias;     // element i at i * bias_stride, or null
  int64_t bias_stride;
  ElementType bias_type;
  void* out;  // [m, n], dense
  ElementType out_type;
  LinearMode mode;
};

}  // namespace lowbit
