// Tensor entry and instances of vector_scale.
#include "vector_scale.cuh"

#include "cuda/execution.h"
#include "cuda/launch.cuh"

namespace lowbit::cuda::examples {

using VectorScaleKernel = void (*)(VectorScaleParams, VectorScaleConfig);

VectorScaleKernel vector_scale_kernel_for(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return vector_scale_kernel<ElementType::kFloat32>;
    case ElementType::kFloat16:
      return vector_scale_kernel<ElementType::kFloat16>;
    default:
      return vector_scale_kernel<ElementType::kBFloat16>;
  }
}

void vector_scale(const Tensor& x, double s, const Tensor& y) {
  using enum ElementType;
  constexpr const char* kOp = "vector_scale";
  const Device device = require_device_type(kOp, "x", x, kDeviceType);
  const ElementType type = require_dtype(kOp, "x", x, {kFloat32, kFloat16, kBFloat16});
  LOWBIT_CHECK(x.dim() == 1, kOp, "x", "have 1 dimension", x.dim(), "; call .flatten()");
  require_contiguous(kOp, "x", x);
  require_device(kOp, "y", y, device);
  require_dtype(kOp, "y", y, {type});
  require_shape(kOp, "y", y, {x.numel()});
  require_contiguous(kOp, "y", y);
  const VectorScaleParams p{input_pointer(kOp, "x", x), output_pointer(kOp, "y", y),
                            static_cast<float>(s)};
  if (x.numel() == 0) return;

  const CurrentStream on(device);
  const VectorScaleConfig c =
      vector_scale_config({x.numel(), output_bytes(type), reinterpret_cast<uintptr_t>(p.x),
                           reinterpret_cast<uintptr_t>(p.y), multiprocessor_count(device.index())});
  launch(kOp, vector_scale_kernel_for(type), {c.blocks, kVectorScaleThreads}, on.stream(), p, c);
}

}  // namespace lowbit::cuda::examples
