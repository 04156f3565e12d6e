// dequantize_weight: out[n, k] = the weight, each element computed in fp32 and rounded once.
#pragma once

#include "weight_format.h"

namespace lowbit {

struct DequantizeWeightParams {
  WeightView weight;
  void* out;             // [n, k], dense
  ElementType out_type;  // float32, float16 or bfloat16
};

}  // namespace lowbit
