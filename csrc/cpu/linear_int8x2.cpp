#include <algorithm>
#include <cmath>
#include <utility>

#include "linear.h"

#define LOWBIT_KERNEL_TEXT "linear_int8x2.inl"
#define LOWBIT_KERNEL_LEVELS \
  (LOWBIT_SCALAR_LEVEL | LOWBIT_AVX2_LEVEL | LOWBIT_AVX512_LEVEL | LOWBIT_VNNI_LEVEL)
#include "foreach_isa.h"

#define LOWBIT_KERNEL_TEXT "linear_int8x2_amx.inl"
#define LOWBIT_KERNEL_LEVELS LOWBIT_AMX_LEVEL
#include "foreach_isa.h"

namespace lowbit::cpu {

// From this many rows on tiles are faster. (The results are the same integers.)
constexpr int64_t kMinTileRows = 4;

LinearKernel linear_int8x2(const WeightOnlyLinearParams& p, [[maybe_unused]] Isa isa) {
  LinearKernel kernel{kMaxChunkColumns, 64, 2, 1, nullptr, nullptr};
#ifdef LOWBIT_X86
  if (isa >= Isa::kAmx && p.m >= kMinTileRows) {
    kernel.tile_rows = kTileRows;
    kernel.pack_rows = amx::pack_rows_int8x2_tiles;
    kernel.multiply = amx::multiply_int8x2_tiles;
    return kernel;
  }
  if (isa >= Isa::kAvx512Vnni) {
    kernel.pack_rows = avx512_vnni::pack_rows_int8x2;
    kernel.multiply = avx512_vnni::choose_multiply_int8x2(p.weight, p.m);
    return kernel;
  }
#endif
  kernel.pack_rows = LOWBIT_FOR_CURRENT_ISA(pack_rows_int8x2);
  kernel.multiply = LOWBIT_FOR_CURRENT_ISA(choose_multiply_int8x2)(p.weight, p.m);
  return kernel;
}

}  // namespace lowbit::cpu
