// Order between CUDA threads, by the one that runs: of its own accesses and of its warp's view.
#pragma once

#include "running.h"

namespace lowbit::cuda::model {

inline AsyncUnits& async_units_of(const Block& owner, uint32_t warp) {
  return owner.threads[warp * 32].fiber->async;
}
inline AsyncUnits& async_units() { return async_units_of(block(), self().warp); }

inline void release(Key& key) {
  release(&key.generic);
  async_units().release_to(&key.async);
}

inline void acquire(Key& key) {
  acquire(&key.generic);
  if (machine->views_grew) async_units().acquire_from(&key.async);
}

// Behind what an asynchronous operation did: others may follow it without a fence.
inline void acquire_operation(void* key) {
  machine->views_grew = true;
  acquire(key);
  async_units().acquire_from(key);
}

inline void acquire_copy(EngineUse& copy) {
  acquire_operation(&copy.key);
  copy.end();
}

inline void fence_async_view() {
  machine->views_grew = true;
  async_units().fence();
}

// Views follow the values of a flag as threads do: their key is the byte behind its first.
inline void* view_key(const uint32_t* flag) {
  return reinterpret_cast<char*>(const_cast<uint32_t*>(flag)) + 1;
}

inline void release_view(const uint32_t* flag) {
  const Unwatched unwatched;
  async_units().release_to(view_key(flag));
}

inline void acquire_view(const uint32_t* flag) {
  const Unwatched unwatched;
  if (machine->views_grew) async_units().acquire_from(view_key(flag));
}

}  // namespace lowbit::cuda::model
