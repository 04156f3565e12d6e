// ldmatrix and stmatrix: 8x8 matrices of 16-bit elements between shared memory and the registers of
// a warp. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, aligned); lane 4r + c
// holds elements 2c and 2c + 1 of row r of each, or of column r if transposed.
#pragma once

#include "shared_memory.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/warp_matrix.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void load_matrix_x2(uint32_t (&out)[2], const void* row) {
  model::load_matrices(out, row, false, "load_matrix_x2");
}
LOWBIT_DEVICE void load_matrix_x2_transposed(uint32_t (&out)[2], const void* row) {
  model::load_matrices(out, row, true, "load_matrix_x2_transposed");
}
LOWBIT_DEVICE void load_matrix_x4(uint32_t (&out)[4], const void* row) {
  model::load_matrices(out, row, false, "load_matrix_x4");
}
LOWBIT_DEVICE void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
  model::load_matrices(out, row, true, "load_matrix_x4_transposed");
}
LOWBIT_DEVICE void store_matrix_x4(void* row, const uint32_t (&in)[4]) {
  model::store_matrices(row, in, false, "store_matrix_x4");
}
LOWBIT_DEVICE void store_matrix_x4_transposed(void* row, const uint32_t (&in)[4]) {
  model::store_matrices(row, in, true, "store_matrix_x4_transposed");
}

#else

LOWBIT_DEVICE void load_matrix_x2(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}

LOWBIT_DEVICE void load_matrix_x2_transposed(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}

LOWBIT_DEVICE void load_matrix_x4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

LOWBIT_DEVICE void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

LOWBIT_DEVICE void store_matrix_x4(void* row, const uint32_t (&in)[4]) {
  LOWBIT_ASM_SM90(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
      "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3]) : "memory");
}

LOWBIT_DEVICE void store_matrix_x4_transposed(void* row, const uint32_t (&in)[4]) {
  LOWBIT_ASM_SM90("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                      shared_address(row)),
                  "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3]) : "memory");
}

#endif

}  // namespace lowbit::cuda
