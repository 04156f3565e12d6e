#include <algorithm>
#include <cmath>
#include <utility>

#include "linear.h"

#define LOWBIT_KERNEL_TEXT "linear_exact.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {

LinearKernel linear_exact([[maybe_unused]] Isa isa) {
  constexpr int64_t kColumns = scalar::kExactColumns;
#ifdef LOWBIT_X86
  if (isa >= Isa::kAvx512) {
    return {kColumns, kLanes, 4, 1, avx512::pack_rows_exact, avx512::multiply_exact};
  }
  if (isa == Isa::kAvx2)
    return {kColumns, kLanes, 4, 1, avx2::pack_rows_exact, avx2::multiply_exact};
#endif
  return {kColumns, kLanes, 4, 1, scalar::pack_rows_exact, scalar::multiply_exact};
}

}  // namespace lowbit::cpu
