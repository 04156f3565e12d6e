// The arguments of prepack_weight and unpack_weight, checked for either device.
#pragma once

#include "prepack_weight.h"
#include "torch_checks.h"

namespace lowbit {

inline constexpr const char* kPrepackWeight = "prepack_weight";
inline constexpr const char* kUnpackWeight = "unpack_weight";

// Of the weight only the format and the codes are here. `layouts`: those that the op takes.
inline WeightView read_codes(const char* op, const Tensor& qweight,
                             const std::vector<int64_t>& format, Device device,
                             std::initializer_list<WeightLayout> layouts) {
  WeightView view{};
  view.format = read_weight_format(op, format);
  require_layout(op, view.format, layouts);
  read_qweight(op, qweight, device, view);
  return view;
}

inline RelayoutParams read_relayout(const char* op, const WeightView& from,
                                    const WeightFormat& packed, const Tensor& out, Device device,
                                    int64_t rows, int64_t words) {
  require_device(op, "out", out, device);
  require_dtype(op, "out", out, {ElementType::kInt32});
  require_shape(op, "out", out, {rows, words});
  require_contiguous(op, "out", out);
  return {packed, from.qweight, from.qweight_stride,
          static_cast<int32_t*>(output_pointer(op, "out", out)), words};
}

// `made`: the packed layout that the kernel makes.
inline RelayoutParams read_prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format,
                                          int64_t layout, const Tensor& out, Device device,
                                          WeightLayout made) {
  constexpr const char* kOp = kPrepackWeight;
  const WeightView from = read_codes(kOp, qweight, format, device, {WeightLayout::kCanonical});
  LOWBIT_CHECK(layout >= 1 && layout <= 2, kOp, "layout", "be in 1..2", layout);
  WeightFormat packed = from.format;
  packed.layout = static_cast<WeightLayout>(layout);
  LOWBIT_CHECK(packed.layout == made, kOp, "layout", std::string("be ") + layout_text(made),
               layout_text(packed.layout));
  return read_relayout(kOp, from, packed, out, device, panel_count(packed), panel_words(packed));
}

// `read`: the packed layout that the kernel reads.
inline RelayoutParams read_unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format,
                                         const Tensor& out, Device device, WeightLayout read) {
  constexpr const char* kOp = kUnpackWeight;
  const WeightView from =
      read_codes(kOp, qweight, format, device, {WeightLayout::kPanels, WeightLayout::kFragments});
  const WeightFormat& f = from.format;
  require_layout(kOp, f, {read});
  return read_relayout(kOp, from, f, out, device, f.n, row_words(f.k, f.bits));
}

}  // namespace lowbit
