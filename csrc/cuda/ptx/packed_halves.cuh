// Arithmetic on the two 16-bit floats of a word, each rounded once.
#pragma once

#include "../conversions.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/packed_halves.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE uint32_t fma_float16x2(uint32_t a, uint32_t b, uint32_t c) {
  return model::fma_pair(a, b, c, float16_to_float, float_to_float16);
}
LOWBIT_DEVICE uint32_t fma_bfloat16x2(uint32_t a, uint32_t b, uint32_t c) {
  return model::fma_pair(a, b, c, bfloat16_to_float, float_to_bfloat16);
}

#else

// a * b + c of both halves.
LOWBIT_DEVICE uint32_t fma_float16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
LOWBIT_DEVICE uint32_t fma_bfloat16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}

#endif

}  // namespace lowbit::cuda
