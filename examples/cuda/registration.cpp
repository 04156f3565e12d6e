// The examples as torch ops, torch.ops.lowbit_examples.*: on CUDA tensors, or built for the host
// model, torch.ops.lowbit_examples_model.* on CPU tensors. One process can load both libraries. The
// last argument of each is written.
#include "torch_checks.h"

#ifdef LOWBIT_HOST_MODEL
#define LOWBIT_DISPATCH_KEY CPU
#define LOWBIT_LIBRARY lowbit_examples_model
#else
#define LOWBIT_DISPATCH_KEY CUDA
#define LOWBIT_LIBRARY lowbit_examples
#endif

namespace lowbit::cuda::examples {

void vector_scale(const Tensor& x, double s, const Tensor& y);
void tiled_gemm(const Tensor& a, const Tensor& b, const Tensor& c);
void tiled_gemm_sm90(const Tensor& a, const Tensor& b, const Tensor& c);

STABLE_TORCH_LIBRARY(LOWBIT_LIBRARY, m) {
  m.def("vector_scale(Tensor x, float s, Tensor(a!) y) -> ()");
  m.def("tiled_gemm(Tensor a, Tensor b, Tensor(a!) c) -> ()");
  m.def("tiled_gemm_sm90(Tensor a, Tensor b, Tensor(a!) c) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(LOWBIT_LIBRARY, LOWBIT_DISPATCH_KEY, m) {
  m.impl("vector_scale", TORCH_BOX(&vector_scale));
  m.impl("tiled_gemm", TORCH_BOX(&tiled_gemm));
  m.impl("tiled_gemm_sm90", TORCH_BOX(&tiled_gemm_sm90));
}

}  // namespace lowbit::cuda::examples
