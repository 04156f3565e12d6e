#include "../weight_only_linear.h"

#include <algorithm>
#include <memory>
#include <new>

#include "../torch_checks.h"

#define LOWBIT_KERNEL_TEXT "weight_only_linear.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

constexpr const char* kOp = "weight_only_linear";

// x rows are converted in passes whose fp32 copy stays below this (but for a single longer row).
constexpr int64_t kPassFloats = int64_t{4} << 20;

// Products that a thread should get at least; fewer cost less than waking it (about 10 us).
constexpr int64_t kGrainProducts = int64_t{1} << 17;

// Splitting x rows repeats the decoding of the weight: only worth it for at least this many.
constexpr int64_t kMinTaskRows = 8;

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Scratch = std::unique_ptr<float[], AlignedDelete>;

Scratch allocate_scratch(int64_t floats) {
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  return Scratch(static_cast<float*>(::operator new[](bytes, std::align_val_t{64})));
}

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

// x rows of a task: many, to decode the weight seldom, but tasks for every thread.
int64_t choose_task_rows(int64_t rows, int64_t n) {
  const int64_t column_blocks = ceil_div(n, kLinearColumns);
  const int64_t row_blocks = ceil_div(4 * num_threads(), column_blocks);
  const int64_t wanted = std::max(ceil_div(rows, row_blocks), kMinTaskRows);
  return std::min({wanted, rows, kLinearRows});
}

void run_passes(const WeightOnlyLinearParams& p) {
  const int64_t k = p.weight.format.k;
  const int64_t n = p.weight.format.n;
  const auto pack = LOWBIT_FOR_CURRENT_ISA(pack_rows);
  const auto multiply = LOWBIT_FOR_CURRENT_ISA(linear_tasks);
  const int64_t row_floats = ceil_div(k, kLanes) * kLanes;
  const int64_t pass_rows = std::min(std::max<int64_t>(kPassFloats / row_floats, 1), p.m);
  const Scratch packed = allocate_scratch(pass_rows * row_floats);
  for (int64_t first = 0; first < p.m; first += pass_rows) {
    const int64_t rows = std::min(pass_rows, p.m - first);
    const LinearPass pass{&p, packed.get(), first, rows, choose_task_rows(rows, n)};
    parallel_for(rows, ceil_div(kGrainProducts, k),
                 [&](int64_t begin, int64_t end) { pack(pass, begin, end); });
    const int64_t tasks = ceil_div(n, kLinearColumns) * ceil_div(rows, pass.task_rows);
    parallel_for(tasks, ceil_div(kGrainProducts, k * kLinearColumns * pass.task_rows),
                 [&](int64_t begin, int64_t end) { multiply(pass, begin, end); });
  }
}

}  // namespace

void weight_only_linear(const Tensor& x, const Tensor& qweight, const Tensor& scales,
                        const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                        const std::optional<Tensor>& s0, const std::optional<Tensor>& permutation,
                        const std::optional<Tensor>& bias, const std::optional<Tensor>& low_rank_a,
                        const std::optional<Tensor>& low_rank_b, const std::vector<int64_t>& format,
                        int64_t numerics, const Tensor& out) {
  using enum ElementType;
  const Device device = require_device_type(kOp, "x", x, DeviceType::CPU);
  WeightOnlyLinearParams p{};
  p.x_type = require_dtype(kOp, "x", x, {kFloat32, kFloat16, kBFloat16});
  p.weight = read_weight(kOp, {qweight, scales, zeros, table, s0, format}, device);
  const int64_t k = p.weight.format.k;
  LOWBIT_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) == k, kOp, "x",
               "have shape [..., " + std::to_string(k) + "]", shape_text(x));
  LOWBIT_CHECK(numerics >= 0 && numerics <= 3, kOp, "numerics", "be in 0..3", numerics);
  LOWBIT_CHECK(numerics <= 2, kOp, "numerics", "be a mode of this kernel", numerics);
  LOWBIT_CHECK(!permutation && !low_rank_a && !low_rank_b, kOp, "permutation and low_rank",
               "be None", "a tensor");
  p.mode = static_cast<LinearMode>(numerics);
  read_bias(bias, device, p);
  require_out(out, x, device, p);
  p.m = x.numel() / k;
  if (p.m == 0 || p.weight.format.n == 0) return;
  input_pointer(kOp, "x", x);  // before a copy reads it
  const Tensor rows = matrix_rows(x, p.x_stride);
  p.x = rows.const_data_ptr();
  p.out = output_pointer(kOp, "out", out);
  run_passes(p);
}

}  // namespace lowbit::cpu
