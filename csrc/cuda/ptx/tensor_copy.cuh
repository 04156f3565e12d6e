// cp.async.bulk.tensor: boxes of tensors moved by the copy engine, which fills what lies outside
// the tensor with zeros and swizzles rows as the TensorMap says. One thread asks for all of it.
// sm_90.
#pragma once

#include "../tensor_map.cuh"
#include "bulk_copy.cuh"

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void prefetch_tensor_map(const TensorMap*) {}

LOWBIT_DEVICE void tensor_copy_to_shared(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, Mbarrier* barrier) {
  model::load_box(map, {column, row}, shared, barrier, 0);
}

LOWBIT_DEVICE void tensor_copy_to_shared(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, int32_t plane, Mbarrier* barrier) {
  model::load_box(map, {column, row, plane}, shared, barrier, 0);
}

LOWBIT_DEVICE void tensor_copy_to_blocks(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, Mbarrier* barrier, uint16_t blocks) {
  model::load_box(map, {column, row}, shared, barrier, blocks);
}

LOWBIT_DEVICE void tensor_copy_to_global(const TensorMap* map, const void* shared, int32_t column,
                                         int32_t row) {
  model::store_box(map, {column, row}, shared);
}

#else

LOWBIT_DEVICE void prefetch_tensor_map(const TensorMap* map) {
  LOWBIT_ASM_SM90("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The box whose first element is (row, column). All its bytes arrive at `barrier`, zeros too.
LOWBIT_DEVICE void tensor_copy_to_shared(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, Mbarrier* barrier) {
  LOWBIT_ASM_SM90(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)) : "memory");
}

LOWBIT_DEVICE void tensor_copy_to_shared(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, int32_t plane, Mbarrier* barrier) {
  LOWBIT_ASM_SM90(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(shared)),
      "l"(map), "r"(column), "r"(row), "r"(plane), "r"(shared_address(barrier)) : "memory");
}

// To the same place in each block of the cluster whose bit is set in `blocks`, and to its barrier.
LOWBIT_DEVICE void tensor_copy_to_blocks(void* shared, const TensorMap* map, int32_t column,
                                         int32_t row, Mbarrier* barrier, uint16_t blocks) {
  LOWBIT_ASM_SM90(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
      "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"(blocks) : "memory");
}

// Elements outside the tensor are not written. fence_async_proxy() must stand before, as for
// bulk_copy_to_global(), whose groups and waits these share.
LOWBIT_DEVICE void tensor_copy_to_global(const TensorMap* map, const void* shared, int32_t column,
                                         int32_t row) {
  LOWBIT_ASM_SM90(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
      "r"(shared_address(shared)), "r"(column), "r"(row) : "memory");
}

#endif

}  // namespace lowbit::cuda
