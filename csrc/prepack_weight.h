// prepack_weight and unpack_weight: the codes of a weight from canonical rows to a packed layout
// and back.
#pragma once

#include "weight_format.h"

namespace lowbit {

struct RelayoutParams {
  WeightFormat format;  // in the packed layout, in either direction
  const int32_t* qweight;
  int64_t qweight_stride;  // words from a canonical row or a panel to the next
  int32_t* out;
  int64_t out_stride;  // the same; out is dense
};

}  // namespace lowbit
