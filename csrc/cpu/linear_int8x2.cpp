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

// Tiles multiply 16 rows in the time of one. (The results are the same integers.)
constexpr int64_t kMinTileRows = 4;

LinearKernel linear_int8x2([[maybe_unused]] Isa isa, [[maybe_unused]] int64_t rows) {
#ifdef LOWBIT_X86
  if (isa >= Isa::kAmx && rows >= kMinTileRows) {
    return {kMaxChunkColumns, 64, 2, amx::pack_rows_int8x2_tiles, amx::multiply_int8x2_tiles};
  }
  if (isa >= Isa::kAvx512Vnni) {
    return {kMaxChunkColumns, 64, 2, avx512_vnni::pack_rows_int8x2, avx512_vnni::multiply_int8x2};
  }
  if (isa == Isa::kAvx512) {
    return {kMaxChunkColumns, 64, 2, avx512::pack_rows_int8x2, avx512::multiply_int8x2};
  }
  if (isa == Isa::kAvx2) {
    return {kMaxChunkColumns, 64, 2, avx2::pack_rows_int8x2, avx2::multiply_int8x2};
  }
#endif
  return {kMaxChunkColumns, 64, 2, scalar::pack_rows_int8x2, scalar::multiply_int8x2};
}

}  // namespace lowbit::cpu
