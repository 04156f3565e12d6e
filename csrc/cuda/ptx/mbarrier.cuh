// mbarrier: a barrier in shared memory whose phase completes when its arrivals and the bytes
// announced for it have come. sm_90.
#pragma once

#include "shared_memory.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/mbarrier.h"
#endif

namespace lowbit::cuda {

using Mbarrier = uint64_t;

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE void init_mbarrier(Mbarrier* barrier, uint32_t arrivals) {
  model::init_mbarrier(barrier, arrivals);
}
LOWBIT_DEVICE void invalidate_mbarrier(Mbarrier* barrier) { model::invalidate_mbarrier(barrier); }
LOWBIT_DEVICE void arrive_mbarrier(Mbarrier* barrier) { model::arrive(model::block(), barrier, 0); }
LOWBIT_DEVICE void arrive_mbarrier_expecting(Mbarrier* barrier, uint32_t bytes) {
  model::arrive(model::block(), barrier, bytes);
}
LOWBIT_DEVICE void arrive_remote_mbarrier(uint32_t address) {
  model::arrive(model::block_of(address), model::shared_pointer(address), 0);
}
LOWBIT_DEVICE bool test_mbarrier(Mbarrier* barrier, uint32_t parity) {
  return model::test_phase(barrier, parity);
}
LOWBIT_DEVICE void wait_mbarrier(Mbarrier* barrier, uint32_t parity) {
  model::wait_phase(barrier, parity);
}

#else

// By one thread, then fence_mbarrier_init() and a barrier before any use.
LOWBIT_DEVICE void init_mbarrier(Mbarrier* barrier, uint32_t arrivals) {
  LOWBIT_ASM_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                  "r"(arrivals) : "memory");
}

LOWBIT_DEVICE void invalidate_mbarrier(Mbarrier* barrier) {
  LOWBIT_ASM_SM90("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

LOWBIT_DEVICE void arrive_mbarrier(Mbarrier* barrier) {
  LOWBIT_ASM_SM90("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(
      shared_address(barrier)) : "memory");
}

// One arrival, and so many bytes that copies will bring before the phase completes.
LOWBIT_DEVICE void arrive_mbarrier_expecting(Mbarrier* barrier, uint32_t bytes) {
  LOWBIT_ASM_SM90("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                      shared_address(barrier)),
                  "r"(bytes) : "memory");
}

// `address` is one that map_shared_address() gave.
LOWBIT_DEVICE void arrive_remote_mbarrier(uint32_t address) {
  LOWBIT_ASM_SM90(
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(address) : "memory");
}

// Whether the phase of this parity has completed. Arrivals may have come from other blocks of the
// cluster: hence its scope.
LOWBIT_DEVICE bool test_mbarrier(Mbarrier* barrier, uint32_t parity) {
  uint32_t done = 0;
  LOWBIT_ASM_SM90(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(shared_address(barrier)),
      "r"(parity) : "memory");
  return done != 0;
}

// Until the phase of this parity has completed. A new barrier is in phase 0, so waiting for parity
// 1 returns at once.
LOWBIT_DEVICE void wait_mbarrier(Mbarrier* barrier, uint32_t parity) {
  while (!test_mbarrier(barrier, parity)) {
  }
}

#endif

}  // namespace lowbit::cuda
