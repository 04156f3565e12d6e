// The arguments of dequantize_weight, checked for either device.
#pragma once

#include "dequantize_weight.h"
#include "torch_checks.h"

namespace lowbit {

inline constexpr const char* kDequantizeWeight = "dequantize_weight";

inline DequantizeWeightParams read_dequantize_weight(const WeightArguments& weight,
                                                     ScalarType dtype, const Tensor& out,
                                                     Device device) {
  using enum ElementType;
  constexpr const char* kOp = kDequantizeWeight;
  DequantizeWeightParams p{};
  p.weight = read_weight(kOp, weight, device, {WeightLayout::kCanonical});
  p.out_type = require_dtype(kOp, "dtype", dtype, {kFloat32, kFloat16, kBFloat16});
  require_device(kOp, "out", out, device);
  require_dtype(kOp, "out", out, {p.out_type});
  require_shape(kOp, "out", out, {p.weight.format.n, p.weight.format.k});
  require_contiguous(kOp, "out", out);
  p.out = output_pointer(kOp, "out", out);
  return p;
}

}  // namespace lowbit
