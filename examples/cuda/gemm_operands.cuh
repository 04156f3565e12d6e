// What both kernels of tiled_gemm share: C[m, n] = A[m, k] B[n, k]^T in fp16 with fp32 sums.
#pragma once

#include "config.h"
#include "cuda/device.cuh"

namespace lowbit::cuda::examples {

// fp16 as bits. K is contiguous in A and B and a multiple of 8, their rows start on 16 bytes; N is
// contiguous in C. Strides are elements between rows.
struct TiledGemmParams {
  const uint16_t* a;
  const uint16_t* b;
  uint16_t* c;
  int64_t a_stride, b_stride, c_stride;
  uint32_t m, n, k;
};

// Neighbours in a row of C, from an even column on; what lies outside of C is dropped.
LOWBIT_DEVICE void store_pair(const TiledGemmParams& p, bool paired_stores, uint32_t row,
                              uint32_t column, float first, float second) {
  if (row >= p.m || column >= p.n) return;
  uint16_t* out = p.c + row * p.c_stride + column;
  const bool has_second = column + 1 < p.n;
  const uint32_t pair = floats_to_float16x2(first, second);
  if (paired_stores && has_second) {
    *reinterpret_cast<uint32_t*>(out) = pair;
  } else {
    out[0] = static_cast<uint16_t>(pair);
    if (has_second) out[1] = static_cast<uint16_t>(pair >> 16);
  }
}

}  // namespace lowbit::cuda::examples
