// Fences between what threads write and what the asynchronous units (copies, wgmma) read. sm_90.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/mbarrier.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void fence_async_proxy() {
  const model::Unwatched unwatched;
  model::fence_async_view();
  model::show_mbarriers();
  model::maybe_switch();
}

LOWBIT_DEVICE void fence_mbarrier_init() {
  const model::Unwatched unwatched;
  model::show_mbarriers();
  model::maybe_switch();
}

#else

// By the threads that wrote, before the barrier behind which another thread starts the unit.
LOWBIT_DEVICE void fence_async_proxy() {
  LOWBIT_ASM_SM90("fence.proxy.async.shared::cta;" :: : "memory");
}

// Shows new mbarriers to the other blocks of the cluster and to the copy engine.
LOWBIT_DEVICE void fence_mbarrier_init() {
  LOWBIT_ASM_SM90("fence.mbarrier_init.release.cluster;" :: : "memory");
}

#endif

}  // namespace lowbit::cuda
