#include "../weight_only_linear.h"

#include "../torch_checks.h"
#include "linear.h"

namespace lowbit::cpu {
namespace {

constexpr const char* kOp = "weight_only_linear";

// Rows of x as [M, k] with one row stride and dense rows; a copy where x has no such view.
Tensor matrix_rows(const Tensor& x, int64_t& stride) {
  const int64_t last = x.dim() - 1;
  bool regular = x.size(last) <= 1 || x.stride(last) == 1;
  int64_t outer = -1;  // innermost leading dimension longer than 1 so far
  stride = x.size(last);
  for (int64_t i = last - 1; i >= 0; --i) {
    if (x.size(i) == 1) continue;
    if (outer < 0) {
      stride = x.stride(i);
    } else {
      regular = regular && x.stride(i) == x.stride(outer) * x.size(outer);
    }
    outer = i;
  }
  if (regular) return x;
  stride = x.size(last);
  return torch::stable::contiguous(x);
}

void read_bias(const std::optional<Tensor>& bias, Device device, WeightOnlyLinearParams& p) {
  if (!bias) return;
  require_device(kOp, "bias", *bias, device);
  p.bias_type = p.x_type == ElementType::kFloat32
                    ? require_dtype(kOp, "bias", *bias, {ElementType::kFloat32})
                    : require_dtype(kOp, "bias", *bias, {p.x_type, ElementType::kFloat32});
  require_shape(kOp, "bias", *bias, {p.weight.format.n});
  p.bias = input_pointer(kOp, "bias", *bias);
  p.bias_stride = bias->stride(0);
}

void require_out(const Tensor& out, const Tensor& x, Device device,
                 const WeightOnlyLinearParams& p) {
  require_device(kOp, "out", out, device);
  require_dtype(kOp, "out", out, {p.x_type});
  const int64_t last = x.dim() - 1;
  bool same = out.dim() == x.dim() && out.size(last) == p.weight.format.n;
  for (int64_t i = 0; same && i < last; ++i) same = out.size(i) == x.size(i);
  LOWBIT_CHECK(same, kOp, "out",
               "have x's shape " + shape_text(x) + " with the last dimension " +
                   std::to_string(p.weight.format.n),
               shape_text(out));
  require_contiguous(kOp, "out", out);
}

}  // namespace

void weight_only_linear(const Tensor& x, const Tensor& qweight, const Tensor& scales,
                        const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                        const std::optional<Tensor>& s0, const std::optional<Tensor>& bias,
                        const std::vector<int64_t>& format, int64_t numerics, const Tensor& out) {
  using enum ElementType;
  const Device device = require_device_type(kOp, "x", x, DeviceType::CPU);
  WeightOnlyLinearParams p{};
  p.x_type = require_dtype(kOp, "x", x, {kFloat32, kFloat16, kBFloat16});
  p.weight = read_weight(kOp, {qweight, scales, zeros, table, s0, format}, device);
  const int64_t k = p.weight.format.k;
  LOWBIT_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) == k, kOp, "x",
               "have shape [..., " + std::to_string(k) + "]", shape_text(x));
  LOWBIT_CHECK(numerics >= 0 && numerics <= 3, kOp, "numerics", "be in 0..3", numerics);
  p.mode = static_cast<LinearMode>(numerics);
  read_bias(bias, device, p);
  require_out(out, x, device, p);
  p.m = x.numel() / k;
  if (p.m == 0 || p.weight.format.n == 0) return;
  input_pointer(kOp, "x", x);  // before a copy reads it
  const Tensor rows = matrix_rows(x, p.x_stride);
  p.x = rows.const_data_ptr();
  p.out = output_pointer(kOp, "out", out);
  p.out_type = p.x_type;
  run_linear(p);
}

}  // namespace lowbit::cpu
