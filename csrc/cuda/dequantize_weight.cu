// Tensor entry and instances of dequantize_weight: 8 widths of code by 3 output types.
#include "dequantize_weight.cuh"

#include "../dequantize_weight_checks.h"
#include "execution.h"
#include "launch.cuh"

namespace lowbit::cuda {

using DequantizeWeightKernel = void (*)(DequantizeWeightParams, DequantizeWeightConfig);

template <ElementType kOut>
DequantizeWeightKernel dequantize_weight_kernel_for(int bits) {
  static constexpr DequantizeWeightKernel kKernels[] = {
      dequantize_weight_kernel<1, kOut>, dequantize_weight_kernel<2, kOut>,
      dequantize_weight_kernel<3, kOut>, dequantize_weight_kernel<4, kOut>,
      dequantize_weight_kernel<5, kOut>, dequantize_weight_kernel<6, kOut>,
      dequantize_weight_kernel<7, kOut>, dequantize_weight_kernel<8, kOut>};
  return kKernels[bits - 1];
}

DequantizeWeightKernel dequantize_weight_kernel_for(int bits, ElementType out) {
  switch (out) {
    case ElementType::kFloat32:
      return dequantize_weight_kernel_for<ElementType::kFloat32>(bits);
    case ElementType::kFloat16:
      return dequantize_weight_kernel_for<ElementType::kFloat16>(bits);
    default:
      return dequantize_weight_kernel_for<ElementType::kBFloat16>(bits);
  }
}

void dequantize_weight(const Tensor& qweight, const Tensor& scales,
                       const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                       const std::optional<Tensor>& s0, const std::vector<int64_t>& format,
                       ScalarType dtype, const Tensor& out) {
  const Device device = require_device_type(kDequantizeWeight, "qweight", qweight, kDeviceType);
  const DequantizeWeightParams p =
      read_dequantize_weight({qweight, scales, zeros, table, s0, format}, dtype, out, device);
  if (p.weight.format.n == 0) return;

  const CurrentStream on(device);
  const DequantizeWeightConfig c = dequantize_weight_config(
      {p.weight.format, output_bytes(p.out_type), reinterpret_cast<uintptr_t>(p.out),
       multiprocessor_count(device.index())});
  launch(kDequantizeWeight, dequantize_weight_kernel_for(p.weight.format.bits, p.out_type),
         {c.blocks, c.threads}, on.stream(), p, c);
}

}  // namespace lowbit::cuda
