// Barriers of a block and of a warp. What threads did before is visible to the others after.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/barriers.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void sync_block() { model::sync_block(); }

LOWBIT_DEVICE void sync_named_barrier(uint32_t id, uint32_t threads) {
  model::barrier_arrive(id, threads, true, "sync_named_barrier");
}

LOWBIT_DEVICE void arrive_named_barrier(uint32_t id, uint32_t threads) {
  model::barrier_arrive(id, threads, false, "arrive_named_barrier");
}

LOWBIT_DEVICE void sync_warp(uint32_t mask = 0xffffffffu) { model::sync_warp(mask); }

#else

LOWBIT_DEVICE void sync_block() { __syncthreads(); }

// `threads` counts those that wait and those that only arrive; a multiple of 32. Number 0 is the
// barrier of sync_block().
LOWBIT_DEVICE void sync_named_barrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

LOWBIT_DEVICE void arrive_named_barrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

LOWBIT_DEVICE void sync_warp(uint32_t mask = 0xffffffffu) { __syncwarp(mask); }

#endif

}  // namespace lowbit::cuda
