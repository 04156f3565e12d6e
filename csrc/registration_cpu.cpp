// Registers the CPU kernels. Their schemas are defined by python/lowbit, so that every op exists
// without a compiled library; the signatures here follow those schemas.
#include "cpu/isa.h"
#include "dispatch.h"
#include "results.h"
#include "torch_checks.h"

namespace lowbit::cpu {

using OptionalTensor = std::optional<Tensor>;

void dequantize_weight(const Tensor& qweight, const Tensor& scales, const OptionalTensor& zeros,
                       const OptionalTensor& table, const OptionalTensor& s0,
                       const std::vector<int64_t>& format, ScalarType dtype, const Tensor& out);

void weight_only_linear(const Tensor& x, const Tensor& qweight, const Tensor& scales,
                        const OptionalTensor& zeros, const OptionalTensor& table,
                        const OptionalTensor& s0, const OptionalTensor& permutation,
                        const OptionalTensor& bias, const OptionalTensor& low_rank_a,
                        const OptionalTensor& low_rank_b, const std::vector<int64_t>& format,
                        int64_t numerics, const Tensor& out);

void weight_only_linear_backward(const Tensor& grad, const Tensor& qweight, const Tensor& scales,
                                 const OptionalTensor& zeros, const OptionalTensor& table,
                                 const OptionalTensor& s0, const std::vector<int64_t>& format,
                                 const Tensor& out);

double probe_read(const Tensor& buffer);
double probe_peak(std::string kind);

void prepack_weight(const Tensor& qweight, const std::vector<int64_t>& format, int64_t layout,
                    const Tensor& out);

void unpack_weight(const Tensor& qweight, const std::vector<int64_t>& format, const Tensor& out);

}  // namespace lowbit::cpu

STABLE_TORCH_LIBRARY_IMPL(lowbit, CPU, m) {
  using namespace lowbit;
  register_op<"dequantize_weight", "cpu", &cpu::dequantize_weight, WholeWeight>(m);
  register_op<"weight_only_linear", "cpu", &cpu::weight_only_linear, RowsOfOutputs>(m);
  register_op<"weight_only_linear_backward", "cpu", &cpu::weight_only_linear_backward,
              RowsOfInputs>(m);
  m.impl("prepack_weight__cpu", TORCH_BOX(&cpu::prepack_weight));
  m.impl("unpack_weight__cpu", TORCH_BOX(&cpu::unpack_weight));
  m.impl("_probe_read", TORCH_BOX(&cpu::probe_read));
}

// Without a tensor argument there is no device to dispatch on.
STABLE_TORCH_LIBRARY_IMPL(lowbit, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&lowbit::cpu::cpu_isa));
  m.impl("_cpu_default_isa", TORCH_BOX(&lowbit::cpu::cpu_default_isa));
  m.impl("_cpu_forget_choices_address", TORCH_BOX(&lowbit::forget_choices_address));
  m.impl("_probe_peak", TORCH_BOX(&lowbit::cpu::probe_peak));
}
