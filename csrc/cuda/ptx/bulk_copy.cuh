// cp.async.bulk: contiguous memory moved by the copy engine; one thread asks for all of it.
// Addresses and sizes are multiples of 16. sm_90.
#pragma once

#include "mbarrier.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/copy_engine.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void bulk_copy_to_shared(void* shared, const void* global, uint32_t bytes,
                                       Mbarrier* barrier) {
  model::check_bulk_copy(shared, global, bytes);
  model::copy_to_shared(model::block(),
                        {{static_cast<char*>(shared), static_cast<const char*>(global), bytes}},
                        barrier, bytes);
}

LOWBIT_DEVICE void bulk_copy_to_global(void* global, const void* shared, uint32_t bytes) {
  model::check_bulk_copy(shared, global, bytes);
  model::copy_to_global({{static_cast<char*>(global), static_cast<const char*>(shared), bytes}});
}

LOWBIT_DEVICE void commit_bulk_stores() { model::commit_bulk_stores(); }

template <uint32_t kPending>
LOWBIT_DEVICE void wait_bulk_stores() {
  model::wait_bulk_stores(kPending);
}

#else

// The bytes arrive at `barrier`, where they must be announced.
LOWBIT_DEVICE void bulk_copy_to_shared(void* shared, const void* global, uint32_t bytes,
                                       Mbarrier* barrier) {
  LOWBIT_ASM_SM90(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)) : "memory");
}

// fence_async_proxy() must stand between the writes to `shared` and this.
LOWBIT_DEVICE void bulk_copy_to_global(void* global, const void* shared, uint32_t bytes) {
  LOWBIT_ASM_SM90("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                  "r"(shared_address(shared)), "r"(bytes) : "memory");
}

LOWBIT_DEVICE void commit_bulk_stores() {
  LOWBIT_ASM_SM90("cp.async.bulk.commit_group;" :: : "memory");
}

// Until at most kPending of the thread's newest groups are in flight.
template <uint32_t kPending>
LOWBIT_DEVICE void wait_bulk_stores() {
  LOWBIT_ASM_SM90("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace lowbit::cuda
