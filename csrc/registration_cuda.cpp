// The CUDA kernels as internal torch ops. Their schemas are defined in Python (lowbit/ops). Built
// for the host model, the same list registers the texts as backend cuda_model on CPU tensors.
#include "torch_checks.h"

#ifdef LOWBIT_HOST_MODEL
#define LOWBIT_DISPATCH_KEY CPU
#define LOWBIT_KERNEL_NAME(op) op "__cuda_model"
#else
#define LOWBIT_DISPATCH_KEY CUDA
#define LOWBIT_KERNEL_NAME(op) op "__cuda"
#endif

namespace lowbit::cuda {

void dequantize_weight(const Tensor& qweight, const Tensor& scales,
                       const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                       const std::optional<Tensor>& s0, const std::vector<int64_t>& format,
                       ScalarType dtype, const Tensor& out);

void fragment_linear(const Tensor& x, const Tensor& qweight, const Tensor& scales,
                     const std::optional<Tensor>& zeros, const std::optional<Tensor>& table,
                     const std::optional<Tensor>& s0, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& addend, const std::vector<int64_t>& format,
                     bool any_rows, const Tensor& out);

void prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format, int64_t layout,
                    const Tensor& out);

void unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format, const Tensor& out);

STABLE_TORCH_LIBRARY_IMPL(lowbit, LOWBIT_DISPATCH_KEY, m) {
  m.impl(LOWBIT_KERNEL_NAME("dequantize_weight"), TORCH_BOX(&dequantize_weight));
  m.impl(LOWBIT_KERNEL_NAME("prepack_weight"), TORCH_BOX(&prepack_weight));
  m.impl(LOWBIT_KERNEL_NAME("unpack_weight"), TORCH_BOX(&unpack_weight));
  // A part of weight_only_linear (ops/weight_only_linear_cuda.py), by one name on either device.
  m.impl("_fragment_linear", TORCH_BOX(&fragment_linear));
}

}  // namespace lowbit::cuda
