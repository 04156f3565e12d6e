// What kernel entries need from torch: argument checks, raw views of tensors, threads, streams.
// The only file that includes torch, and of torch only the headers with a stable ABI.
//
// The public functions check their arguments in Python, but torch.ops is open to anyone, so
// everything that memory safety rests on is checked again here, before a byte is written.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "weight_format.h"

namespace lowbit {

using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;
using DeviceType = torch::headeronly::DeviceType;

// "<op>: <argument> must <need>, got <got...>". A remedy goes last, after "; ".
template <typename... Got>
[[gnu::cold, gnu::noinline]] std::string sentence(const char* op, const char* argument,
                                                  const std::string& need, const Got&... got) {
  std::ostringstream text;
  text << op << ": " << argument << " must " << need << ", got ";
  (text << ... << got);
  return text.str();
}

// Throws the sentence as what torch makes a ValueError of, as Python's own refusals are.
template <typename... Got>
[[noreturn, gnu::cold, gnu::noinline]] void refuse(const char* op, const char* argument,
                                                   const std::string& need, const Got&... got) {
  throw std::invalid_argument(sentence(op, argument, need, got...));
}

// The texts of `need` and `got` are only put together when the check fails.
#define LOWBIT_CHECK(cond, op, argument, need, ...)            \
  do {                                                         \
    if (!(cond)) [[unlikely]] {                                \
      ::lowbit::refuse((op), (argument), (need), __VA_ARGS__); \
    }                                                          \
  } while (false)

// ---- words for messages ----

inline std::string shape_text(const int64_t* sizes, size_t dim) {
  std::ostringstream text;
  text << '[';
  for (size_t i = 0; i < dim; ++i) text << (i ? ", " : "") << sizes[i];
  text << ']';
  return text.str();
}

inline std::string shape_text(const Tensor& t) {
  return shape_text(t.sizes().data(), static_cast<size_t>(t.dim()));
}

inline std::string dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float8_e4m3fn:
      return "float8_e4m3fn";
    case ScalarType::Float8_e8m0fnu:
      return "float8_e8m0fnu";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    default:
      return torch::headeronly::toString(type);
  }
}

inline std::string device_text(Device device) {
  const std::string type = device.type() == DeviceType::CPU    ? "cpu"
                           : device.type() == DeviceType::CUDA ? "cuda"
                           : device.type() == DeviceType::Meta
                               ? "meta"
                               : "device type " + std::to_string(static_cast<int>(device.type()));
  return device.index() < 0 || device.type() == DeviceType::CPU
             ? type
             : type + ":" + std::to_string(device.index());
}

// ---- element types ----

inline ScalarType scalar_type_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return ScalarType::Float;
    case ElementType::kFloat16:
      return ScalarType::Half;
    case ElementType::kBFloat16:
      return ScalarType::BFloat16;
    case ElementType::kFloat8E4M3:
      return ScalarType::Float8_e4m3fn;
    case ElementType::kFloat8E8M0:
      return ScalarType::Float8_e8m0fnu;
    case ElementType::kUInt8:
      return ScalarType::Byte;
    case ElementType::kInt32:
      return ScalarType::Int;
  }
  return ScalarType::Undefined;
}

// torch's number of a dtype. Two calls compare it, where Tensor::scalar_type() asks torch for the
// numbers of one dtype after the other.
inline int32_t dtype_number(const Tensor& t) {
  int32_t number = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &number));
  return number;
}

inline int32_t dtype_number(ScalarType type) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

inline std::string dtype_choice_text(std::initializer_list<ElementType> types) {
  std::string text;
  size_t left = types.size();
  for (ElementType type : types) {
    text += dtype_text(scalar_type_of(type));
    --left;
    text += left > 1 ? ", " : left == 1 ? " or " : "";
  }
  return text;
}

inline ElementType require_dtype(const char* op, const char* argument, ScalarType got,
                                 std::initializer_list<ElementType> allowed) {
  for (ElementType type : allowed) {
    if (got == scalar_type_of(type)) return type;
  }
  refuse(op, argument, "be " + dtype_choice_text(allowed), dtype_text(got));
}

inline ElementType require_dtype(const char* op, const char* argument, const Tensor& t,
                                 std::initializer_list<ElementType> allowed) {
  const int32_t number = dtype_number(t);
  for (ElementType type : allowed) {
    if (number == dtype_number(scalar_type_of(type))) return type;
  }
  return require_dtype(op, argument, t.scalar_type(), allowed);  // refuses
}

// ---- device, shape, strides ----

// The device all tensors of a call share: that of `t`, which must be of type `type`.
inline Device require_device_type(const char* op, const char* argument, const Tensor& t,
                                  DeviceType type) {
  const Device device = t.device();
  LOWBIT_CHECK(device.type() == type, op, argument, "be a " + device_text(Device(type)) + " tensor",
               "one on ", device_text(device));
  return device;
}

inline void require_device(const char* op, const char* argument, const Tensor& t, Device device) {
  LOWBIT_CHECK(t.device() == device, op, argument, "be on " + device_text(device),
               device_text(t.device()), "; move all arguments to one device");
}

inline void require_shape(const char* op, const char* argument, const Tensor& t,
                          std::initializer_list<int64_t> shape) {
  const auto sizes = t.sizes();
  LOWBIT_CHECK(std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()), op, argument,
               "have shape " + shape_text(shape.begin(), shape.size()), shape_text(t));
}

// For a tensor that has a dimension.
inline void require_dense_rows(const char* op, const char* argument, const Tensor& t) {
  const int64_t stride = t.strides().back();
  LOWBIT_CHECK(stride == 1 || t.sizes().back() <= 1, op, argument,
               "have unit stride along its last dimension", "stride ", stride,
               "; call .contiguous()");
}

inline void require_contiguous(const char* op, const char* argument, const Tensor& t) {
  LOWBIT_CHECK(t.is_contiguous(), op, argument, "be contiguous", "strides ",
               shape_text(t.strides().data(), static_cast<size_t>(t.dim())));
}

// A tensor may outlive its memory (untyped_storage().resize_(0)) or be misaligned (frombuffer).
inline void require_memory(const char* op, const char* argument, const Tensor& t,
                           const void* data) {
  if (t.numel() == 0) return;
  const auto sizes = t.sizes(), strides = t.strides();
  int64_t last = t.storage_offset(), storage_bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(t.get(), &storage_bytes));
  const auto element_size = static_cast<int64_t>(t.element_size());
  LOWBIT_CHECK(data != nullptr && (last + 1) * element_size <= storage_bytes, op, argument,
               "have memory for all its elements", "a storage of ", storage_bytes, " bytes");
  LOWBIT_CHECK(reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_size) == 0, op,
               argument, "be aligned to its element size", "address ", data, "; clone it");
}

inline const void* input_pointer(const char* op, const char* argument, const Tensor& t) {
  const void* data = t.const_data_ptr();
  require_memory(op, argument, t, data);
  return data;
}

inline void* output_pointer(const char* op, const char* argument, const Tensor& t) {
  void* data = t.mutable_data_ptr();
  require_memory(op, argument, t, data);
  return data;
}

// A new dense tensor on the device of another, uninitialised; `dtype` is torch's number.
inline Tensor empty(const char* op, const std::vector<int64_t>& shape, int32_t dtype,
                    const Tensor& beside) {
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(beside.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(beside.get(), &device_index));
  std::vector<int64_t> strides(shape.size(), 1);
  bool fits = true;
  for (size_t i = shape.size(); i-- > 1;) {
    fits &= !__builtin_mul_overflow(strides[i], std::max(shape[i], int64_t{1}), &strides[i - 1]);
  }
  const auto dim = static_cast<int64_t>(shape.size());
  AtenTensorHandle made = nullptr;
  if (!fits || aoti_torch_empty_strided(dim, shape.data(), strides.data(), dtype, device_type,
                                        device_index, &made) != TORCH_SUCCESS) [[unlikely]] {
    throw std::runtime_error(sentence(op, "the result", "fit into memory", "shape ",
                                      shape_text(shape.data(), shape.size())));
  }
  return Tensor(made);
}

// Distance between rows of a 2-D tensor, in elements.
inline int64_t row_stride(const Tensor& t) { return t.stride(0); }

// ---- the weight ----

// The weight arguments as every op takes them.
struct WeightArguments {
  const Tensor& qweight;
  const Tensor& scales;
  const std::optional<Tensor>& zeros;
  const std::optional<Tensor>& table;
  const std::optional<Tensor>& s0;
  const std::vector<int64_t>& format;
};

inline void require_field(const char* op, const char* field, int64_t value, int64_t low,
                          int64_t high) {
  LOWBIT_CHECK(
      value >= low && value <= high, op, "format",
      std::string("have ") + field + " in " + std::to_string(low) + ".." + std::to_string(high),
      value);
}

// Checks that every field is in its range, so that no later arithmetic on them can overflow.
inline WeightFormat read_weight_format(const char* op, const std::vector<int64_t>& f) {
  LOWBIT_CHECK(static_cast<int64_t>(f.size()) == kWeightFormatFields, op, "format",
               "have " + std::to_string(kWeightFormatFields) + " fields", f.size());
  LOWBIT_CHECK(f[0] == kWeightFormatVersion, op, "format_version",
               "be " + std::to_string(kWeightFormatVersion), f[0],
               f[0] > kWeightFormatVersion ? "; update lowbit" : "");
  require_field(op, "bits", f[1], 1, 8);
  require_field(op, "n", f[2], 0, kMaxWeightExtent);
  require_field(op, "k", f[3], 1, kMaxWeightExtent);
  require_field(op, "block_n", f[4], 1, kMaxWeightExtent);
  require_field(op, "block_k", f[5], 1, kMaxWeightExtent);
  require_field(op, "zero_kind", f[6], 0, 3);
  require_field(op, "layout", f[7], 0, 2);
  return {static_cast<int32_t>(f[1]),     f[2], f[3], f[4], f[5], static_cast<ZeroKind>(f[6]),
          static_cast<WeightLayout>(f[7])};
}

inline const char* layout_text(WeightLayout layout) {
  static constexpr const char* kNames[] = {"canonical", "panels", "fragments"};
  return kNames[static_cast<int>(layout)];
}

// Of the layouts, those that an op or a kernel reads.
inline void require_layout(const char* op, const WeightFormat& f,
                           std::initializer_list<WeightLayout> layouts) {
  if (std::find(layouts.begin(), layouts.end(), f.layout) != layouts.end()) return;
  std::string names;
  for (WeightLayout layout : layouts) {
    names += (names.empty() ? "" : " or ") + std::string(layout_text(layout));
  }
  refuse(op, "format", "have the layout " + names, layout_text(f.layout));
}

inline void read_qweight(const char* op, const Tensor& t, Device device, WeightView& view) {
  require_device(op, "qweight", t, device);
  require_dtype(op, "qweight", t, {ElementType::kInt32});
  const WeightFormat& f = view.format;
  if (f.layout == WeightLayout::kCanonical) {
    require_shape(op, "qweight", t, {f.n, row_words(f.k, f.bits)});
    require_dense_rows(op, "qweight", t);
  } else {
    require_shape(op, "qweight", t, {panel_count(f), panel_words(f)});
    require_contiguous(op, "qweight", t);
  }
  view.qweight = static_cast<const int32_t*>(input_pointer(op, "qweight", t));
  view.qweight_stride = row_stride(t);
}

// The shape of scales and zeros.
inline void require_groups(const char* op, const char* argument, const Tensor& t,
                           const WeightFormat& f) {
  if (f.layout != WeightLayout::kCanonical && f.block_n == 1) {
    require_shape(op, argument, t, {panel_count(f), scale_columns(f), kPanelRows});
    require_contiguous(op, argument, t);
  } else {
    require_shape(op, argument, t, {scale_rows(f), scale_columns(f)});
    require_dense_rows(op, argument, t);
  }
}

inline void read_scales(const char* op, const Tensor& t, Device device, WeightView& view) {
  using enum ElementType;
  require_device(op, "scales", t, device);
  view.scales_type =
      require_dtype(op, "scales", t, {kFloat32, kFloat16, kBFloat16, kFloat8E4M3, kFloat8E8M0});
  require_groups(op, "scales", t, view.format);
  view.scales = input_pointer(op, "scales", t);
  view.scales_stride = row_stride(t);
}

inline const char* zero_kind_text(ZeroKind kind) {
  static constexpr const char* kNames[] = {"none", "midpoint", "code", "value"};
  return kNames[static_cast<int>(kind)];
}

inline void read_zeros(const char* op, const std::optional<Tensor>& t, Device device,
                       WeightView& view) {
  using enum ElementType;
  const ZeroKind kind = view.format.zero_kind;
  if (kind == ZeroKind::kNone || kind == ZeroKind::kMidpoint) {
    LOWBIT_CHECK(!t, op, "zeros", std::string("be None for the zero kind ") + zero_kind_text(kind),
                 "a tensor of shape ", shape_text(*t));
    return;
  }
  LOWBIT_CHECK(t.has_value(), op, "zeros",
               std::string("be a tensor for the zero kind ") + zero_kind_text(kind), "None");
  require_device(op, "zeros", *t, device);
  view.zeros_type = require_dtype(op, "zeros", *t, {kUInt8, kFloat16, kBFloat16, kFloat32});
  require_groups(op, "zeros", *t, view.format);
  view.zeros = input_pointer(op, "zeros", *t);
  view.zeros_stride = row_stride(*t);
}

inline void read_table(const char* op, const std::optional<Tensor>& t, Device device,
                       WeightView& view) {
  if (!t) return;
  LOWBIT_CHECK(view.format.bits <= kMaxTableBits, op, "table",
               "be None above " + std::to_string(kMaxTableBits) + " bits", "a tensor at ",
               view.format.bits, " bits");
  require_device(op, "table", *t, device);
  require_dtype(op, "table", *t, {ElementType::kFloat32});
  require_shape(op, "table", *t, {int64_t{1} << view.format.bits});
  require_dense_rows(op, "table", *t);
  view.table = static_cast<const float*>(input_pointer(op, "table", *t));
}

inline void read_s0(const char* op, const std::optional<Tensor>& t, Device device,
                    WeightView& view) {
  if (!t) return;
  require_device(op, "s0", *t, device);
  require_dtype(op, "s0", *t, {ElementType::kFloat32});
  if (t->dim() != 0) require_shape(op, "s0", *t, {view.format.n});
  view.s0 = static_cast<const float*>(input_pointer(op, "s0", *t));
  view.s0_stride = t->dim() == 0 ? 0 : t->stride(0);
}

// Checks the weight arguments against `format` and against `device`; the view borrows their memory.
// `layouts`: those that the kernel reads.
inline WeightView read_weight(const char* op, const WeightArguments& a, Device device,
                              std::initializer_list<WeightLayout> layouts) {
  WeightView view{};
  view.format = read_weight_format(op, a.format);
  read_qweight(op, a.qweight, device, view);
  read_scales(op, a.scales, device, view);
  read_zeros(op, a.zeros, device, view);
  read_table(op, a.table, device, view);
  read_s0(op, a.s0, device, view);
  require_layout(op, view.format, layouts);  // last, as in Python, where every op takes all
  return view;
}

// ---- execution ----

// Calls body(begin, end) on disjoint ranges that make up [0, count), on torch's threads: on at most
// ceil(count / grain) of them, so a range has about `grain` items or more. The body must not throw.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return;
  torch::stable::parallel_for(0, count, grain, body);
}

inline int64_t num_threads() { return torch::stable::get_num_threads(); }

#ifdef USE_CUDA
using torch::stable::accelerator::DeviceGuard;

// torch's current stream of the device, as a cudaStream_t.
inline void* current_cuda_stream(int32_t device_index) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_index, &stream));
  return stream;
}
#endif

}  // namespace lowbit
