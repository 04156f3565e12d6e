// weight_only_linear_backward: out[m, k] = sum over n of grad[m, n] * w[n, k], summed in fp32,
// rounded once.
#pragma once

#include "weight_format.h"

namespace lowbit {

struct WeightOnlyLinearBackwardParams {
  WeightView weight;
  int64_t m;
  const void* grad;  // [m, n], rows dense
  int64_t grad_stride;
  void* out;         // [m, k], dense
  ElementType type;  // of grad and out: float32, float16 or bfloat16
};

}  // namespace lowbit
