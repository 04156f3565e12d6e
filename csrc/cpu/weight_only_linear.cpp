#include "../weight_only_linear.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "../torch_checks.h"
#include "linear.h"
#include "low_rank.h"
#include "matrix_rows.h"

namespace lowbit::cpu {
namespace {

constexpr const char* kOp = "weight_only_linear";

// What a call has besides a plain linear. x, low-rank factors and out are of the logical columns;
// the permutation orders x as the columns of the weight are stored.
struct Extras {
  const int32_t* permutation = nullptr;
  bool low_rank = false;
  DenseView a{}, b{};

  bool any() const { return permutation || low_rank; }
};

void read_permutation(const std::optional<Tensor>& t, Device device, int64_t k, Extras& extras) {
  if (!t) return;
  require_device(kOp, "permutation", *t, device);
  require_dtype(kOp, "permutation", *t, {ElementType::kInt32});
  require_shape(kOp, "permutation", *t, {k});
  require_contiguous(kOp, "permutation", *t);
  const auto* order = static_cast<const int32_t*>(input_pointer(kOp, "permutation", *t));
  const auto [least, most] = std::minmax_element(order, order + k);
  LOWBIT_CHECK(*least >= 0 && *most < k, kOp, "permutation",
               "hold numbers in 0.." + std::to_string(k - 1), *least < 0 ? *least : *most);
  extras.permutation = order;
}

// `holder` keeps a copy where the rows of the factor are not dense.
DenseView read_factor(const char* name, const Tensor& t, Device device, ElementType x_type,
                      int64_t rows, int64_t columns, std::optional<Tensor>& holder) {
  require_device(kOp, name, t, device);
  const ElementType type = x_type == ElementType::kFloat32
                               ? require_dtype(kOp, name, t, {ElementType::kFloat32})
                               : require_dtype(kOp, name, t, {x_type, ElementType::kFloat32});
  require_shape(kOp, name, t, {rows, columns});
  input_pointer(kOp, name, t);  // before a copy reads it
  holder = columns <= 1 || t.stride(1) == 1 ? t : torch::stable::contiguous(t);
  return {holder->const_data_ptr(), rows, columns, row_stride(*holder), type};
}

// Floats of each matrix of a slab: the rows that are worked on at a time where x is copied or
// low-rank terms are made.
constexpr int64_t kSlabFloats = int64_t{8} << 20;

constexpr int64_t kGrainElements = int64_t{1} << 16;

template <typename Element>
void permute_rows(const WeightOnlyLinearParams& p, const int32_t* order, int64_t begin, int64_t end,
                  Element* out) {
  const int64_t k = p.weight.format.k;
  for (int64_t row = begin; row < end; ++row) {
    const auto* source = static_cast<const Element*>(p.x) + row * p.x_stride;
    for (int64_t j = 0; j < k; ++j) out[row * k + j] = source[order[j]];
  }
}

// Points p.x to a copy in `memory` with its columns in the order of the weight's.
void permute_x(WeightOnlyLinearParams& p, const int32_t* order, float* memory) {
  const int64_t k = p.weight.format.k;
  parallel_for(p.m, ceil_div(kGrainElements, k), [&](int64_t begin, int64_t end) {
    if (p.x_type == ElementType::kFloat32) {
      permute_rows(p, order, begin, end, memory);
    } else {
      permute_rows(p, order, begin, end, reinterpret_cast<uint16_t*>(memory));
    }
  });
  p.x = memory;
  p.x_stride = k;
}

// Memory for the slabs of a call with extras.
struct SlabMemory {
  std::unique_ptr<float[]> permuted, x_floats, inner, addend;

  SlabMemory(const WeightFormat& f, int64_t rows, const Extras& extras) {
    const auto make = [&](int64_t columns) {
      return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows * columns));
    };
    if (extras.permutation) permuted = make(f.k);
    if (!extras.low_rank) return;
    x_floats = make(ceil_div(f.k, 16) * 16);
    inner = make(extras.a.rows);
    addend = make(f.n);
  }
};

void run_slab(WeightOnlyLinearParams p, const Extras& extras, const SlabMemory& memory) {
  const WeightFormat& f = p.weight.format;
  if (extras.low_rank) {
    const DenseView x{p.x, p.m, f.k, p.x_stride, p.x_type};
    low_rank(
        {x, extras.a, extras.b, memory.x_floats.get(), memory.inner.get(), memory.addend.get()});
    p.addend = memory.addend.get();
  }
  if (extras.permutation) permute_x(p, extras.permutation, memory.permuted.get());
  run_linear(p);
}

void run_slabs(const WeightOnlyLinearParams& p, const Extras& extras) {
  const WeightFormat& f = p.weight.format;
  const int64_t widest = std::max({f.k, f.n, extras.a.rows});
  const int64_t rows = std::clamp<int64_t>(kSlabFloats / widest, 1, p.m);
  const SlabMemory memory(f, rows, extras);
  const int64_t element = p.x_type == ElementType::kFloat32 ? 4 : 2;
  for (int64_t first = 0; first < p.m; first += rows) {
    WeightOnlyLinearParams slab = p;
    slab.m = std::min(rows, p.m - first);
    slab.x = static_cast<const uint8_t*>(p.x) + first * p.x_stride * element;
    slab.out = static_cast<uint8_t*>(p.out) + first * f.n * element;
    run_slab(slab, extras, memory);
  }
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

// The mode whose kernel serves a call: `dense` rounds the weight to x's type, and a kernel may be
// more exact than that. bfloat16 products of codes are; those of rounded table entries are not.
LinearMode served_mode(LinearMode mode, const WeightOnlyLinearParams& p) {
  if (mode != LinearMode::kDense) return mode;
  const bool bf16 = p.x_type == ElementType::kBFloat16 && !p.weight.table;
  return bf16 ? LinearMode::kBFloat16 : LinearMode::kExact;
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
  p.weight = read_weight(kOp, {qweight, scales, zeros, table, s0, format}, device,
                         {WeightLayout::kCanonical, WeightLayout::kPanels});
  const int64_t k = p.weight.format.k;
  LOWBIT_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) == k, kOp, "x",
               "have shape [..., " + std::to_string(k) + "]", shape_text(x));
  LOWBIT_CHECK(numerics >= 0 && numerics <= 4, kOp, "numerics", "be in 0..4", numerics);
  p.mode = served_mode(static_cast<LinearMode>(numerics), p);
  Extras extras;
  std::optional<Tensor> a_holder, b_holder;
  read_permutation(permutation, device, k, extras);
  read_bias(bias, device, p);
  LOWBIT_CHECK(low_rank_a.has_value() == low_rank_b.has_value(), kOp,
               low_rank_a ? "low_rank_b" : "low_rank_a",
               std::string("be a tensor, as ") + (low_rank_a ? "low_rank_a" : "low_rank_b") + " is",
               "None");
  if (low_rank_a) {
    LOWBIT_CHECK(low_rank_a->dim() == 2, kOp, "low_rank_a",
                 "have shape [r, " + std::to_string(k) + "]", shape_text(*low_rank_a));
    const int64_t rank = low_rank_a->size(0);
    extras.a = read_factor("low_rank_a", *low_rank_a, device, p.x_type, rank, k, a_holder);
    extras.b =
        read_factor("low_rank_b", *low_rank_b, device, p.x_type, p.weight.format.n, rank, b_holder);
    extras.low_rank = rank > 0;
  }
  require_rows_like(kOp, "x", x, p.weight.format.n, out);
  p.m = x.numel() / k;
  if (p.m == 0 || p.weight.format.n == 0) return;
  input_pointer(kOp, "x", x);  // before a copy reads it
  const Tensor rows = matrix_rows(x, p.x_stride);
  p.x = rows.const_data_ptr();
  p.out = output_pointer(kOp, "out", out);
  p.out_type = p.x_type;
  if (extras.any()) {
    run_slabs(p, extras);
  } else {
    run_linear(p);
  }
}

}  // namespace lowbit::cpu
