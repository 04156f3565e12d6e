// mma.sync: d[16, 8] += a[16, K] b[K, 8] by the lanes of a warp, 32 bytes of K. Fragments: PTX ISA,
// "Matrix fragments for mma.m16n8k16" and ".m16n8k32".
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/warp_matrix.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void mma_float16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  model::multiply_warp<model::Operand::kFloat16>(d, a, b, "mma_float16");
}
LOWBIT_DEVICE void mma_bfloat16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  model::multiply_warp<model::Operand::kBFloat16>(d, a, b, "mma_bfloat16");
}
LOWBIT_DEVICE void mma_int8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  model::multiply_warp<model::Operand::kInt8>(d, a, b, "mma_int8");
}
LOWBIT_DEVICE void mma_float8_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  model::multiply_warp<model::Operand::kFloat8E4M3>(d, a, b, "mma_float8_e4m3");
}

#else

#define LOWBIT_MMA(statement, shape_and_types, constraint)                                         \
  statement("mma.sync.aligned." shape_and_types                                                    \
            " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : constraint(d[0]), \
            constraint(d[1]), constraint(d[2]), constraint(d[3]) : "r"(a[0]), "r"(a[1]),           \
            "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

LOWBIT_DEVICE void mma_float16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOWBIT_MMA(asm volatile, "m16n8k16.row.col.f32.f16.f16.f32", "+f");
}
LOWBIT_DEVICE void mma_bfloat16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOWBIT_MMA(asm volatile, "m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
}
LOWBIT_DEVICE void mma_int8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOWBIT_MMA(asm volatile, "m16n8k32.row.col.s32.s8.s8.s32", "+r");
}
LOWBIT_DEVICE void mma_float8_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOWBIT_MMA(LOWBIT_ASM_SM89, "m16n8k32.row.col.f32.e4m3.e4m3.f32", "+f");
}

#undef LOWBIT_MMA

#endif

}  // namespace lowbit::cuda
