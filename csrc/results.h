// The uninitialised results of the public ops, from their arguments. Only calls of a kind that
// Python has checked before come here, so the format is one that exists; shapes may be anything.
#pragma once

#include <tuple>

#include "torch_checks.h"

namespace lowbit {

// x's shape with the field n or k of the format as its last dimension, in x's dtype.
template <size_t kField>
struct RowsOf {
  static Tensor allocate(const char* op, const Tensor& x, const auto&... others) {
    const auto& format = std::get<const std::vector<int64_t>&>(std::tie(others...));
    std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
    if (!shape.empty()) shape.back() = format[kField];  // else the kernel refuses x
    return empty(op, shape, dtype_number(x), x);
  }
};

using RowsOfOutputs = RowsOf<2>;
using RowsOfInputs = RowsOf<3>;

// The weight itself: [n, k] in the dtype asked for.
struct WholeWeight {
  static Tensor allocate(const char* op, const Tensor& qweight, const auto&... others) {
    const auto inputs = std::tie(others...);
    const auto& format = std::get<const std::vector<int64_t>&>(inputs);
    const auto dtype = std::get<const ScalarType&>(inputs);
    return empty(op, {format[2], format[3]}, dtype_number(dtype), qweight);
  }
};

}  // namespace lowbit
