// Activations of any leading shape as the rows of a matrix, and the results that go with them.
#pragma once

#include "../torch_checks.h"

namespace lowbit::cpu {

// x[..., k] as [M, k] with one row stride and dense rows; a copy where x has no such view.
inline Tensor matrix_rows(const Tensor& x, int64_t& stride) {
  const int64_t last = x.dim() - 1;
  bool regular = x.size(last) <= 1 || x.stride(last) == 1;
  int64_t outer = -1;  // innermost leading dimension longer than 1 so far
  stride = x.size(last);
  for (int64_t i = last - 1; i >= 0; --i) {
    if (x.size(i) == 1) continue;
    if (outer < 0) {
      stride = x.stride(i);
    } else {
      regular = regular && x.stride(i) == x.stride(outer) * x.size(outer);
    }
    outer = i;
  }
  if (regular) return x;
  stride = x.size(last);
  return torch::stable::contiguous(x);
}

// A result has the dtype, device and leading shape of x, and dense rows of `columns`.
inline void require_rows_like(const char* op, const char* name, const Tensor& x, int64_t columns,
                              const Tensor& out) {
  const ScalarType dtype = x.scalar_type();
  require_device(op, "out", out, x.device());
  LOWBIT_CHECK(out.scalar_type() == dtype, op, "out", "be " + dtype_text(dtype),
               dtype_text(out.scalar_type()));
  const int64_t last = x.dim() - 1;
  bool same = out.dim() == x.dim() && out.size(last) == columns;
  for (int64_t i = 0; same && i < last; ++i) same = out.size(i) == x.size(i);
  LOWBIT_CHECK(same, op, "out",
               "have " + std::string(name) + "'s shape " + shape_text(x) +
                   " with the last dimension " + std::to_string(columns),
               shape_text(out));
  require_contiguous(op, "out", out);
}

}  // namespace lowbit::cpu
