// cp.async: copies from global to shared memory behind a thread's back, waited for in groups. Each
// thread waits for its own; a barrier then shows them to the others.
#pragma once

#include "shared_memory.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/async_copy.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void copy_async_16(void* shared, const void* global, uint32_t bytes = 16) {
  model::issue_async_copy(shared, global, 16, bytes);
}

template <uint32_t kBytes>
LOWBIT_DEVICE void copy_async(void* shared, const void* global, uint32_t bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8);
  model::issue_async_copy(shared, global, kBytes, bytes);
}

LOWBIT_DEVICE void commit_async_copies() { model::commit_async_copies(); }

template <uint32_t kPending>
LOWBIT_DEVICE void wait_async_copies() {
  model::wait_async_copies(kPending);
}

#else

// 16 bytes, past the first cache: the first `bytes` of them from `global`, which is not read
// beyond, the rest zeros. Both aligned to 16.
LOWBIT_DEVICE void copy_async_16(void* shared, const void* global, uint32_t bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}

template <uint32_t kBytes>
LOWBIT_DEVICE void copy_async(void* shared, const void* global, uint32_t bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
               "l"(global), "n"(kBytes), "r"(bytes)
               : "memory");
}

LOWBIT_DEVICE void commit_async_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most kPending of the thread's newest groups are in flight.
template <uint32_t kPending>
LOWBIT_DEVICE void wait_async_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace lowbit::cuda
