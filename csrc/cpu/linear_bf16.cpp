#include <algorithm>
#include <cmath>
#include <utility>

#include "linear.h"

#define LOWBIT_KERNEL_TEXT "linear_bf16.inl"
#define LOWBIT_KERNEL_LEVELS LOWBIT_BF16_LEVEL
#include "foreach_isa.h"

#define LOWBIT_KERNEL_TEXT "linear_bf16_amx.inl"
#define LOWBIT_KERNEL_LEVELS LOWBIT_AMX_LEVEL
#include "foreach_isa.h"

namespace lowbit::cpu {

LinearKernel linear_bf16(Isa isa) {
#ifdef LOWBIT_X86
  if (isa == Isa::kAmx) {
    return {kMaxChunkColumns,        32, 2, kTileRows, amx::pack_rows_bf16_tiles,
            amx::multiply_bf16_tiles};
  }
  if (isa == Isa::kAvx512Bf16) {
    return {kMaxChunkColumns, 32, 2, 1, avx512_bf16::pack_rows_bf16, avx512_bf16::multiply_bf16};
  }
#endif
  return linear_exact(isa);
}

}  // namespace lowbit::cpu
