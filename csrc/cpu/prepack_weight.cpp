#include "../torch_checks.h"

#define LOWBIT_KERNEL_TEXT "prepack_weight.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {

namespace {

constexpr const char* kPrepackWeight = "prepack_weight";
constexpr const char* kUnpackWeight = "unpack_weight";
// Words of panels that a thread should get at least: about 20 us of work.
constexpr int64_t kGrainWords = 1 << 15;

// Of the weight only the format and the codes are here. `layouts`: those that the op takes.
WeightView read_codes(const char* op, const Tensor& qweight, const std::vector<int64_t>& format,
                      std::initializer_list<WeightLayout> layouts) {
  const Device device = require_device_type(op, "qweight", qweight, DeviceType::CPU);
  WeightView view{};
  view.format = read_weight_format(op, format);
  require_layout(op, view.format, layouts);
  read_qweight(op, qweight, device, view);
  return view;
}

int32_t* read_out(const char* op, const Tensor& out, int64_t rows, int64_t words) {
  require_device_type(op, "out", out, DeviceType::CPU);
  require_dtype(op, "out", out, {ElementType::kInt32});
  require_shape(op, "out", out, {rows, words});
  require_contiguous(op, "out", out);
  return static_cast<int32_t*>(output_pointer(op, "out", out));
}

int64_t grain_panels(const WeightFormat& f) { return ceil_div(kGrainWords, panel_words(f)); }

}  // namespace

void prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format, int64_t layout,
                    const Tensor& out) {
  constexpr const char* kOp = kPrepackWeight;
  const WeightView view = read_codes(kOp, qweight, format, {WeightLayout::kCanonical});
  LOWBIT_CHECK(layout >= 1 && layout <= 2, kOp, "layout", "be in 1..2", layout);
  const auto packed = static_cast<WeightLayout>(layout);
  LOWBIT_CHECK(packed == WeightLayout::kPanels, kOp, "layout", "be panels", layout_text(packed));
  const WeightFormat& f = view.format;
  int32_t* panels = read_out(kOp, out, panel_count(f), panel_words(f));

  const auto kernel = LOWBIT_FOR_CURRENT_ISA(prepack_panels);
  parallel_for(panel_count(f), grain_panels(f), [&](int64_t begin, int64_t end) {
    kernel(f, view.qweight, view.qweight_stride, panels, begin, end);
  });
}

void unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format, const Tensor& out) {
  constexpr const char* kOp = kUnpackWeight;
  const WeightView view =
      read_codes(kOp, qweight, format, {WeightLayout::kPanels, WeightLayout::kFragments});
  const WeightFormat& f = view.format;
  require_layout(kOp, f, {WeightLayout::kPanels});
  int32_t* canonical = read_out(kOp, out, f.n, row_words(f.k, f.bits));

  const auto kernel = LOWBIT_FOR_CURRENT_ISA(unpack_panels);
  parallel_for(panel_count(f), grain_panels(f),
               [&](int64_t begin, int64_t end) { kernel(f, view.qweight, canonical, begin, end); });
}

}  // namespace lowbit::cpu
