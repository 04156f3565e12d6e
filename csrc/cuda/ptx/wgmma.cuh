// wgmma: d[64, N] = a[64, 32 bytes] b[32 bytes, N] (+ d) by a warpgroup, behind its threads. b
// comes from shared memory, a from shared memory or from registers (fragments of mma.cuh, 16 rows a
// warp). Registers of a product must be left alone from its issue until wait_wgmma(). sm_90a.
#pragma once

#include <type_traits>

#include "shared_memory.cuh"
#include "swizzle.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/warpgroup_matrix.h"
#else
#include "wgmma_operands.cuh"
#endif

namespace lowbit::cuda {

// Where an operand lies (PTX ISA, "Matrix descriptor format"). With K contiguous: rows as wide as
// the swizzle, groups of eight rows `stride` bytes apart; without swizzle 8x16-byte pieces,
// `leading` apart along K. With M or N contiguous: pieces as wide as the swizzle `leading` bytes
// apart, groups of eight k `stride` apart.
LOWBIT_DEVICE uint64_t matrix_descriptor(const void* shared, uint32_t leading, uint32_t stride,
                                         Swizzle swizzle) {
#ifdef LOWBIT_HOST_MODEL
  model::require_describable(shared);
#endif
  const auto sixteenths = [](uint32_t bytes) -> uint64_t { return (bytes & 0x3ffffu) >> 4; };
  return sixteenths(shared_address(shared)) | sixteenths(leading) << 16 | sixteenths(stride) << 32 |
         static_cast<uint64_t>(swizzle) << 62;
}

// The same matrix from `bytes` further on: the next K within a row of the swizzle.
LOWBIT_DEVICE uint64_t advance_descriptor(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void fence_wgmma() { model::fence_products(); }
LOWBIT_DEVICE void commit_wgmma() { model::commit_products(); }
template <uint32_t kPending>
LOWBIT_DEVICE void wait_wgmma() {
  model::wait_products(kPending);
}
template <typename T, int kRegisters>
LOWBIT_DEVICE void wait_wgmma(T (&)[kRegisters]) {
  model::wait_products(0);
}

template <uint32_t kN, bool kTransposeA = false, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_float16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  model::issue_product({model::Operand::kFloat16, kN, false, a, b, kTransposeA, kTransposeB, adds},
                       d, nullptr);
}
template <uint32_t kN, bool kTransposeA = false, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_bfloat16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  model::issue_product({model::Operand::kBFloat16, kN, false, a, b, kTransposeA, kTransposeB, adds},
                       d, nullptr);
}
template <uint32_t kN>
LOWBIT_DEVICE void wgmma_float8_e4m3(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  model::issue_product({model::Operand::kFloat8E4M3, kN, false, a, b, false, false, adds}, d,
                       nullptr);
}
template <uint32_t kN>
LOWBIT_DEVICE void wgmma_int8(int32_t (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  model::issue_product({model::Operand::kInt8, kN, false, a, b, false, false, adds}, d, nullptr);
}
template <uint32_t kN, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_float16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                 bool adds) {
  model::issue_product({model::Operand::kFloat16, kN, true, 0, b, false, kTransposeB, adds}, d, a);
}
template <uint32_t kN, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_bfloat16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                  bool adds) {
  model::issue_product({model::Operand::kBFloat16, kN, true, 0, b, false, kTransposeB, adds}, d, a);
}
template <uint32_t kN>
LOWBIT_DEVICE void wgmma_float8_e4m3(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                     bool adds) {
  model::issue_product({model::Operand::kFloat8E4M3, kN, true, 0, b, false, false, adds}, d, a);
}
template <uint32_t kN>
LOWBIT_DEVICE void wgmma_int8(int32_t (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool adds) {
  model::issue_product({model::Operand::kInt8, kN, true, 0, b, false, false, adds}, d, a);
}

#else

// Between other accesses to the registers of a product and the first wgmma that uses them.
LOWBIT_DEVICE void fence_wgmma() { LOWBIT_ASM_SM90A("wgmma.fence.sync.aligned;" :: : "memory"); }

LOWBIT_DEVICE void commit_wgmma() {
  LOWBIT_ASM_SM90A("wgmma.commit_group.sync.aligned;" :: : "memory");
}

// Until at most kPending of the newest groups are in flight.
template <uint32_t kPending>
LOWBIT_DEVICE void wait_wgmma() {
  LOWBIT_ASM_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Until no group is in flight, whose sums are `d`: to the compiler they were there since the wgmma
// itself, and only this keeps what reads them behind the wait.
template <typename T, int kRegisters>
LOWBIT_DEVICE void wait_wgmma(T (&d)[kRegisters]) {
  wait_wgmma<0>();
  LOWBIT_UNROLL
  for (int i = 0; i < kRegisters; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(d[i])::"memory");
    } else {
      asm volatile("" : "+r"(d[i])::"memory");
    }
  }
}

// ---- statements for one N; `tail` is what follows the predicate ----

#define LOWBIT_WGMMA_TAIL_INT8(n) ""
#define LOWBIT_WGMMA_TAIL_FLOAT8(n) ", 1, 1"
#define LOWBIT_WGMMA_TAIL_SHARED(n) ", 1, 1, " LOWBIT_WGMMA_IN3_##n ", " LOWBIT_WGMMA_IN4_##n
#define LOWBIT_WGMMA_TAIL_REGISTERS(n) ", 1, 1, " LOWBIT_WGMMA_IN6_##n

#define LOWBIT_WGMMA_SHARED(n, types, tail, constraint)                                      \
  LOWBIT_ASM_SM90A("{\n.reg .pred p;\nsetp.ne.b32 p, " LOWBIT_WGMMA_IN2_##n                  \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n types " " LOWBIT_WGMMA_D_##n \
                   ", " LOWBIT_WGMMA_IN0_##n ", " LOWBIT_WGMMA_IN1_##n                       \
                   ", p" tail ";\n}" : LOWBIT_WGMMA_REGISTERS_##n(constraint) : "l"(a),      \
                   "l"(b), "r"(static_cast<int>(adds)), "n"(kTransposeA ? 1 : 0),            \
                   "n"(kTransposeB ? 1 : 0) : "memory")

#define LOWBIT_WGMMA_REGISTER_A(n, types, tail, constraint)                                       \
  LOWBIT_ASM_SM90A("{\n.reg .pred p;\nsetp.ne.b32 p, " LOWBIT_WGMMA_IN5_##n                       \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n types " " LOWBIT_WGMMA_D_##n      \
                   ", {" LOWBIT_WGMMA_IN0_##n ", " LOWBIT_WGMMA_IN1_##n ", " LOWBIT_WGMMA_IN2_##n \
                   ", " LOWBIT_WGMMA_IN3_##n "}, " LOWBIT_WGMMA_IN4_##n                           \
                   ", p" tail ";\n}" : LOWBIT_WGMMA_REGISTERS_##n(constraint) : "r"(a[0]),        \
                   "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)),          \
                   "n"(kTransposeB ? 1 : 0) : "memory")

// The statement for the N of the template; others do not compile.
#define LOWBIT_WGMMA_EACH_N(statement, types, tail, constraint)                         \
  static_assert(kN == 8 || kN == 16 || kN == 32 || kN == 64 || kN == 128 || kN == 256); \
  if constexpr (kN == 8) statement(8, types, tail(8), constraint);                      \
  if constexpr (kN == 16) statement(16, types, tail(16), constraint);                   \
  if constexpr (kN == 32) statement(32, types, tail(32), constraint);                   \
  if constexpr (kN == 64) statement(64, types, tail(64), constraint);                   \
  if constexpr (kN == 128) statement(128, types, tail(128), constraint);                \
  if constexpr (kN == 256) statement(256, types, tail(256), constraint);

// a from shared memory. Transposed: M or N is contiguous, not K.
template <uint32_t kN, bool kTransposeA = false, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_float16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_SHARED, "k16.f32.f16.f16", LOWBIT_WGMMA_TAIL_SHARED, "+f")
}

template <uint32_t kN, bool kTransposeA = false, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_bfloat16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_SHARED, "k16.f32.bf16.bf16", LOWBIT_WGMMA_TAIL_SHARED, "+f")
}

template <uint32_t kN>
LOWBIT_DEVICE void wgmma_float8_e4m3(float (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  [[maybe_unused]] constexpr bool kTransposeA = false, kTransposeB = false;
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_SHARED, "k32.f32.e4m3.e4m3", LOWBIT_WGMMA_TAIL_FLOAT8, "+f")
}

template <uint32_t kN>
LOWBIT_DEVICE void wgmma_int8(int32_t (&d)[kN / 2], uint64_t a, uint64_t b, bool adds) {
  [[maybe_unused]] constexpr bool kTransposeA = false, kTransposeB = false;
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_SHARED, "k32.s32.s8.s8", LOWBIT_WGMMA_TAIL_INT8, "+r")
}

// a from registers.
template <uint32_t kN, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_float16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                 bool adds) {
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_REGISTER_A, "k16.f32.f16.f16", LOWBIT_WGMMA_TAIL_REGISTERS, "+f")
}

template <uint32_t kN, bool kTransposeB = false>
LOWBIT_DEVICE void wgmma_bfloat16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                  bool adds) {
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_REGISTER_A, "k16.f32.bf16.bf16", LOWBIT_WGMMA_TAIL_REGISTERS,
                      "+f")
}

template <uint32_t kN>
LOWBIT_DEVICE void wgmma_float8_e4m3(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                     bool adds) {
  [[maybe_unused]] constexpr bool kTransposeB = false;
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_REGISTER_A, "k32.f32.e4m3.e4m3", LOWBIT_WGMMA_TAIL_FLOAT8, "+f")
}

template <uint32_t kN>
LOWBIT_DEVICE void wgmma_int8(int32_t (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool adds) {
  [[maybe_unused]] constexpr bool kTransposeB = false;
  LOWBIT_WGMMA_EACH_N(LOWBIT_WGMMA_REGISTER_A, "k32.s32.s8.s8", LOWBIT_WGMMA_TAIL_INT8, "+r")
}

#undef LOWBIT_WGMMA_EACH_N
#undef LOWBIT_WGMMA_REGISTER_A
#undef LOWBIT_WGMMA_SHARED
#undef LOWBIT_WGMMA_TAIL_REGISTERS
#undef LOWBIT_WGMMA_TAIL_SHARED
#undef LOWBIT_WGMMA_TAIL_FLOAT8
#undef LOWBIT_WGMMA_TAIL_INT8

#endif

}  // namespace lowbit::cuda
