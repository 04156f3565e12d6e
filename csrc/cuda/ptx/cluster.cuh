// Clusters: blocks that run at the same time and reach each other's shared memory. sm_90.
#pragma once

#include "shared_memory.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/barriers.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE uint32_t cluster_rank() { return model::block().rank; }
LOWBIT_DEVICE uint32_t cluster_size() {
  return static_cast<uint32_t>(model::block().cluster->blocks.size());
}
LOWBIT_DEVICE void sync_cluster() { model::sync_cluster(); }

LOWBIT_DEVICE uint32_t map_shared_address(const void* shared, uint32_t rank) {
  return model::map_shared_address(shared, rank);
}
LOWBIT_DEVICE uint32_t load_remote(uint32_t address) { return model::load_remote(address); }
LOWBIT_DEVICE void store_remote(uint32_t address, uint32_t value) {
  model::store_remote(address, value);
}

#else

LOWBIT_DEVICE uint32_t cluster_rank() {
  uint32_t rank = 0;
  LOWBIT_ASM_SM90("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

LOWBIT_DEVICE uint32_t cluster_size() {
  uint32_t size = 1;
  LOWBIT_ASM_SM90("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

// A barrier of all threads of the cluster. One must stand before the end of a block whose shared
// memory others use.
LOWBIT_DEVICE void sync_cluster() {
  LOWBIT_ASM_SM90(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" :: : "memory");
}

// The address of the same place in the shared memory of the block of this rank.
LOWBIT_DEVICE uint32_t map_shared_address(const void* shared, uint32_t rank) {
  uint32_t address = 0;
  LOWBIT_ASM_SM90(
      "mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)),
      "r"(rank));
  return address;
}

LOWBIT_DEVICE uint32_t load_remote(uint32_t address) {
  uint32_t value = 0;
  LOWBIT_ASM_SM90("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

LOWBIT_DEVICE void store_remote(uint32_t address, uint32_t value) {
  LOWBIT_ASM_SM90("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

#endif

}  // namespace lowbit::cuda
