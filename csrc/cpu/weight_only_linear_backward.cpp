#include <algorithm>
#include <utility>

#include "aligned_memory.h"
#include "linear_backward.h"
#include "matrix_rows.h"

#define LOWBIT_KERNEL_TEXT "weight_only_linear_backward.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

constexpr const char* kOp = "weight_only_linear_backward";

// grad is transposed in passes whose copy stays below this (but for a single block of rows).
constexpr int64_t kPassBytes = int64_t{16} << 20;

// Products and elements of grad that a thread should get at least; fewer cost less than waking it.
constexpr int64_t kGrainProducts = int64_t{1} << 18;
constexpr int64_t kGrainElements = int64_t{1} << 15;

// Rows of a task: many, to decode a span seldom, but tasks for every thread.
int64_t choose_block_rows(int64_t rows, int64_t spans) {
  const int64_t blocks = ceil_div(4 * num_threads(), spans);
  return std::clamp(round_up(ceil_div(rows, blocks), kStripRows), kStripRows, kMaxGradRows);
}

void run_pass(const BackwardPass& pass) {
  const auto pack = LOWBIT_FOR_CURRENT_ISA(pack_grad);
  const auto multiply = LOWBIT_FOR_CURRENT_ISA(multiply_grad);
  const WeightFormat& f = pass.params->weight.format;
  const int64_t strips = ceil_div(pass.rows, kStripRows);
  parallel_for(panel_count(f) * strips, kGrainElements / (kPanelRows * kStripRows),
               [&](int64_t begin, int64_t end) { pack(pass, begin, end); });
  const int64_t products =
      std::max<int64_t>(f.n, 1) * kSpanColumns * std::min(pass.block_rows, pass.padded_rows);
  parallel_for(pass.spans * ceil_div(pass.rows, pass.block_rows),
               ceil_div(kGrainProducts, products),
               [&](int64_t begin, int64_t end) { multiply(pass, begin, end); });
}

void run_backward(const WeightOnlyLinearBackwardParams& p) {
  const WeightFormat& f = p.weight.format;
  BackwardPass pass{};
  pass.params = &p;
  pass.chunks = cut_columns(f, kSpanColumns, kLanes);
  pass.span_chunks = kSpanColumns / pass.chunks.columns;
  pass.spans = ceil_div(pass.chunks.count, pass.span_chunks);
  const int64_t row_bytes = std::max<int64_t>(f.n, 1) * int64_t{sizeof(float)};
  const int64_t pass_rows =
      std::min(round_up(std::max<int64_t>(kPassBytes / row_bytes, 1), kMaxGradRows), p.m);
  const AlignedMemory memory = aligned_memory(round_up(pass_rows, kLanes) * row_bytes);
  pass.grad = reinterpret_cast<float*>(memory.get());
  for (; pass.first_row < p.m; pass.first_row += pass_rows) {
    pass.rows = std::min(pass_rows, p.m - pass.first_row);
    pass.padded_rows = round_up(pass.rows, kLanes);
    pass.block_rows = choose_block_rows(pass.rows, pass.spans);
    run_pass(pass);
  }
}

}  // namespace

void weight_only_linear_backward(const Tensor& grad, const Tensor& qweight, const Tensor& scales,
                                 const std::optional<Tensor>& zeros,
                                 const std::optional<Tensor>& table,
                                 const std::optional<Tensor>& s0,
                                 const std::vector<int64_t>& format, const Tensor& out) {
  using enum ElementType;
  const Device device = require_device_type(kOp, "grad", grad, DeviceType::CPU);
  WeightOnlyLinearBackwardParams p{};
  p.type = require_dtype(kOp, "grad", grad, {kFloat32, kFloat16, kBFloat16});
  p.weight = read_weight(kOp, {qweight, scales, zeros, table, s0, format}, device,
                         {WeightLayout::kCanonical, WeightLayout::kPanels});
  const WeightFormat& f = p.weight.format;
  LOWBIT_CHECK(grad.dim() >= 1 && grad.size(grad.dim() - 1) == f.n, kOp, "grad",
               "have shape [..., " + std::to_string(f.n) + "]", shape_text(grad));
  require_rows_like(kOp, "grad", grad, f.k, out);
  p.m = out.numel() / f.k;
  if (p.m == 0) return;
  input_pointer(kOp, "grad", grad);  // before a copy reads it
  const Tensor rows = matrix_rows(grad, p.grad_stride);
  p.grad = rows.const_data_ptr();
  p.out = output_pointer(kOp, "out", out);
  run_backward(p);
}

}  // namespace lowbit::cpu
