// Tensor entry and instances of weight_only_linear: 2, 3, 4 and 8 bits and 4-bit tables, by two
// types of operand and two tiles of x.
#include "weight_only_linear.cuh"

#include "execution.h"
#include "launch.cuh"

namespace lowbit::cuda {

inline constexpr const char* kWeightOnlyLinear = "weight_only_linear";
using WeightOnlyLinearKernel = void (*)(WeightOnlyLinearParams, LinearConfig, float*);

template <ElementType kOperand, uint32_t kTileM>
WeightOnlyLinearKernel weight_only_linear_kernel_for(int bits, bool table) {
  if (table) return weight_only_linear_kernel<4, true, kOperand, kTileM>;
  switch (bits) {
    case 2:
      return weight_only_linear_kernel<2, false, kOperand, kTileM>;
    case 3:
      return weight_only_linear_kernel<3, false, kOperand, kTileM>;
    case 4:
      return weight_only_linear_kernel<4, false, kOperand, kTileM>;
    default:
      return weight_only_linear_kernel<8, false, kOperand, kTileM>;
  }
}

WeightOnlyLinearKernel weight_only_linear_kernel_for(const WeightOnlyLinearParams& p,
                                                     uint32_t tile_m) {
  using enum ElementType;
  const int bits = p.weight.format.bits;
  const bool table = p.weight.table != nullptr;
  if (p.x_type == kFloat16) {
    return tile_m == kSmallTileM
               ? weight_only_linear_kernel_for<kFloat16, kSmallTileM>(bits, table)
               : weight_only_linear_kernel_for<kFloat16, kLargeTileM>(bits, table);
  }
  return tile_m == kSmallTileM ? weight_only_linear_kernel_for<kBFloat16, kSmallTileM>(bits, table)
                               : weight_only_linear_kernel_for<kBFloat16, kLargeTileM>(bits, table);
}

// ---- arguments ----

// Copies move 16 bytes from aligned addresses.
void require_aligned_copies(const char* argument, const void* data) {
  const auto beyond = reinterpret_cast<uintptr_t>(data) % 16;
  LOWBIT_CHECK(beyond == 0, kWeightOnlyLinear, argument, "start on 16 bytes", beyond,
               " behind them; clone it");
}

void read_fragment_weight(const WeightArguments& arguments, Device device,
                          WeightOnlyLinearParams& p) {
  p.weight = read_weight(kWeightOnlyLinear, arguments, device, {WeightLayout::kFragments});
  const WeightFormat& f = p.weight.format;
  const bool known =
      p.weight.table ? f.bits == 4 : f.bits == 2 || f.bits == 3 || f.bits == 4 || f.bits == 8;
  LOWBIT_CHECK(known, kWeightOnlyLinear, "format", "have 2, 3, 4 or 8 bits, with a table 4",
               f.bits);
  LOWBIT_CHECK(f.block_n == 1, kWeightOnlyLinear, "format", "have scales for each row, block_n 1",
               f.block_n);
  require_aligned_copies("qweight", p.weight.qweight);
  require_aligned_copies("scales", p.weight.scales);
  if (p.weight.zeros) require_aligned_copies("zeros", p.weight.zeros);
}

// Columns of x: those of the weight, or those of its units where groups are filled up to units.
int64_t operand_columns(const WeightFormat& f) {
  const bool filled = scale_columns(f) > 1 && f.block_k % kFragmentUnitColumns != 0;
  return filled ? panel_units(f) * kFragmentUnitColumns : f.k;
}

// x [parts, m, columns]; returns how many parts.
int64_t read_operand(const Tensor& x, Device device, WeightOnlyLinearParams& p) {
  using enum ElementType;
  constexpr const char* kOp = kWeightOnlyLinear;
  require_device(kOp, "x", x, device);
  p.x_type = require_dtype(kOp, "x", x, {kFloat16, kBFloat16});
  LOWBIT_CHECK(x.dim() == 3, kOp, "x", "have 3 dimensions", x.dim());
  const int64_t parts = x.size(0), columns = operand_columns(p.weight.format);
  p.m = x.size(1);
  LOWBIT_CHECK(x.size(2) == columns, kOp, "x", "have " + std::to_string(columns) + " columns",
               shape_text(x));
  LOWBIT_CHECK(parts >= 1 && parts * p.m <= kMaxWeightExtent, kOp, "x", "have fewer rows",
               shape_text(x));
  if (p.m == 0) return parts;
  require_dense_rows(kOp, "x", x);
  p.x_stride = parts * p.m == 1 ? ceil_div(columns, 8) * 8 : p.m > 1 ? x.stride(1) : x.stride(0);
  const bool even = parts == 1 || p.m == 1 || x.stride(0) == p.m * p.x_stride;
  LOWBIT_CHECK(even && p.x_stride % 8 == 0 && p.x_stride >= columns, kOp, "x",
               "have rows a multiple of 8 elements apart, those of all parts alike",
               "strides " + std::to_string(x.stride(0)) + " and " + std::to_string(x.stride(1)));
  p.x = input_pointer(kOp, "x", x);
  require_aligned_copies("x", p.x);
  return parts;
}

void read_results(const std::optional<Tensor>& bias, const std::optional<Tensor>& addend,
                  const Tensor& out, Device device, WeightOnlyLinearParams& p) {
  using enum ElementType;
  constexpr const char* kOp = kWeightOnlyLinear;
  const int64_t n = p.weight.format.n;
  if (bias) {
    require_device(kOp, "bias", *bias, device);
    p.bias_type = require_dtype(kOp, "bias", *bias, {kFloat32, kFloat16, kBFloat16});
    require_shape(kOp, "bias", *bias, {n});
    p.bias = input_pointer(kOp, "bias", *bias);
    p.bias_stride = bias->stride(0);
  }
  if (addend) {
    require_device(kOp, "addend", *addend, device);
    require_dtype(kOp, "addend", *addend, {kFloat32});
    require_shape(kOp, "addend", *addend, {p.m, n});
    require_contiguous(kOp, "addend", *addend);
    p.addend = static_cast<const float*>(input_pointer(kOp, "addend", *addend));
  }
  require_device(kOp, "out", out, device);
  p.out_type = require_dtype(kOp, "out", out, {kFloat32, kFloat16, kBFloat16});
  require_shape(kOp, "out", out, {p.m, n});
  require_contiguous(kOp, "out", out);
  p.out = output_pointer(kOp, "out", out);
}

// ---- launches ----

LinearProblem problem_of(const WeightArguments& weight, const WeightOnlyLinearParams& p,
                         int64_t parts, bool any_rows, Device device) {
  const auto element_bytes = [](const Tensor& t) { return static_cast<int64_t>(t.element_size()); };
  return {.format = p.weight.format,
          .rows = parts * p.m,
          .parts = parts,
          .columns = operand_columns(p.weight.format),
          .scale_bytes = element_bytes(weight.scales),
          .zero_bytes = p.weight.zeros ? element_bytes(*weight.zeros) : 0,
          .out_bytes = output_bytes(p.out_type),
          .out_address = reinterpret_cast<uintptr_t>(p.out),
          .any_rows = any_rows,
          .multiprocessors = multiprocessor_count(device.index()),
          .shared_bytes = max_shared_bytes(device.index())};
}

void launch_linear(const WeightOnlyLinearParams& p, const LinearConfig& c, float* sums,
                   const CurrentStream& on) {
  launch(kWeightOnlyLinear, weight_only_linear_kernel_for(p, c.tile_m),
         {.blocks = c.tiles_n,
          .threads = kLinearThreads,
          .shared_bytes = c.shared_bytes,
          .blocks_y = c.splits,
          .blocks_z = c.tiles_m},
         on.stream(), p, c, sums);
}

// x [parts, m, columns]: what is multiplied, 16-bit; the products of all parts are added. out
// [m, n] = their sum + addend + bias, rounded once. any_rows: the order of sums must not depend on
// how many rows x has.
void fragment_linear(const Tensor& x, const Tensor& qweight, const Tensor& scales,
                     const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                     const std::optional<Tensor>& s0, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& addend, const std::vector<int64_t>& format,
                     bool any_rows, const Tensor& out) {
  const Device device = require_device_type(kWeightOnlyLinear, "qweight", qweight, kDeviceType);
  const WeightArguments weight{qweight, scales, zeros, table, s0, format};
  WeightOnlyLinearParams p{};
  read_fragment_weight(weight, device, p);
  const int64_t parts = read_operand(x, device, p);
  read_results(bias, addend, out, device, p);
  if (p.m == 0 || p.weight.format.n == 0) return;

  const CurrentStream on(device);
  const LinearConfig c = weight_only_linear_config(problem_of(weight, p, parts, any_rows, device));
  if (!c.adds_sums()) return launch_linear(p, c, nullptr, on);
  const Tensor sums = empty(kWeightOnlyLinear, {c.splits, c.rows, c.padded_n},
                            dtype_number(ScalarType::Float), out);
  auto* memory = static_cast<float*>(sums.mutable_data_ptr());
  launch_linear(p, c, memory, on);
  launch(kWeightOnlyLinear, weight_only_linear_sums_kernel,
         {ceil_div(p.m * p.weight.format.n, kLinearThreads), kLinearThreads}, on.stream(), p, c,
         static_cast<const float*>(memory));
}

}  // namespace lowbit::cuda
