// Tensor entries and instances of prepack_weight and unpack_weight: 8 widths of code each.
#include "prepack_weight.cuh"

#include "../prepack_weight_checks.h"
#include "execution.h"
#include "launch.cuh"

namespace lowbit::cuda {

using RelayoutKernel = void (*)(RelayoutParams, RelayoutConfig);

static constexpr RelayoutKernel kPrepackKernels[] = {
    prepack_weight_kernel<1>, prepack_weight_kernel<2>, prepack_weight_kernel<3>,
    prepack_weight_kernel<4>, prepack_weight_kernel<5>, prepack_weight_kernel<6>,
    prepack_weight_kernel<7>, prepack_weight_kernel<8>};
static constexpr RelayoutKernel kUnpackKernels[] = {
    unpack_weight_kernel<1>, unpack_weight_kernel<2>, unpack_weight_kernel<3>,
    unpack_weight_kernel<4>, unpack_weight_kernel<5>, unpack_weight_kernel<6>,
    unpack_weight_kernel<7>, unpack_weight_kernel<8>};

void prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format, int64_t layout,
                    const Tensor& out) {
  const Device device = require_device_type(kPrepackWeight, "qweight", qweight, kDeviceType);
  const RelayoutParams p =
      read_prepack_weight(qweight, format, layout, out, device, WeightLayout::kFragments);
  if (p.format.n == 0) return;

  const CurrentStream on(device);
  const RelayoutConfig c =
      prepack_weight_config({p.format, reinterpret_cast<uintptr_t>(p.out),
                             reinterpret_cast<uintptr_t>(p.qweight), p.qweight_stride});
  launch(kPrepackWeight, kPrepackKernels[p.format.bits - 1], {c.blocks, c.threads}, on.stream(), p,
         c);
}

void unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format, const Tensor& out) {
  const Device device = require_device_type(kUnpackWeight, "qweight", qweight, kDeviceType);
  const RelayoutParams p =
      read_unpack_weight(qweight, format, out, device, WeightLayout::kFragments);
  if (p.format.n == 0) return;

  const CurrentStream on(device);
  const RelayoutConfig c = unpack_weight_config({p.format, reinterpret_cast<uintptr_t>(p.qweight),
                                                 reinterpret_cast<uintptr_t>(p.out), p.out_stride});
  launch(kUnpackWeight, kUnpackKernels[p.format.bits - 1], {c.blocks, c.threads}, on.stream(), p,
         c);
}

}  // namespace lowbit::cuda
