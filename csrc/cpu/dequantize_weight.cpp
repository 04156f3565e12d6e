#include "../dequantize_weight_checks.h"

#define LOWBIT_KERNEL_TEXT "dequantize_weight.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {

// Chunks of work that a thread should get at least: about 20 us of decoding.
constexpr int64_t kGrainChunks = 128;

void dequantize_weight(const Tensor& qweight, const Tensor& scales,
                       const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                       const std::optional<Tensor>& s0, const std::vector<int64_t>& format,
                       ScalarType dtype, const Tensor& out) {
  const Device device = require_device_type(kDequantizeWeight, "qweight", qweight, DeviceType::CPU);
  const DequantizeWeightParams p =
      read_dequantize_weight({qweight, scales, zeros, table, s0, format}, dtype, out, device);

  const auto kernel = LOWBIT_FOR_CURRENT_ISA(dequantize_tasks);
  const int64_t tasks = p.weight.format.n * scalar::dequantize_chunks(p.weight.format);
  parallel_for(tasks, kGrainChunks, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
}

}  // namespace lowbit::cpu
