#include "../index_bits.h"
#include "../prepack_weight_checks.h"

#define LOWBIT_KERNEL_TEXT "prepack_weight.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {

namespace {

// Words of panels that a thread should get at least: about 20 us of work.
constexpr int64_t kGrainWords = 1 << 15;

int64_t grain_panels(const WeightFormat& f) { return ceil_div(kGrainWords, panel_words(f)); }

}  // namespace

void prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format, int64_t layout,
                    const Tensor& out) {
  const Device device = require_device_type(kPrepackWeight, "qweight", qweight, DeviceType::CPU);
  const RelayoutParams p =
      read_prepack_weight(qweight, format, layout, out, device, WeightLayout::kPanels);

  const auto kernel = LOWBIT_FOR_CURRENT_ISA(prepack_panels);
  parallel_for(panel_count(p.format), grain_panels(p.format), [&](int64_t begin, int64_t end) {
    kernel(p.format, p.qweight, p.qweight_stride, p.out, begin, end);
  });
}

void unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format, const Tensor& out) {
  const Device device = require_device_type(kUnpackWeight, "qweight", qweight, DeviceType::CPU);
  const RelayoutParams p = read_unpack_weight(qweight, format, out, device, WeightLayout::kPanels);

  const auto kernel = LOWBIT_FOR_CURRENT_ISA(unpack_panels);
  parallel_for(panel_count(p.format), grain_panels(p.format),
               [&](int64_t begin, int64_t end) { kernel(p.format, p.qweight, p.out, begin, end); });
}

}  // namespace lowbit::cpu
