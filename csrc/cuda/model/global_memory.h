// Global memory on the model: atomics and the read-only path.
#pragma once

#include "shared_memory.h"

namespace lowbit::cuda::model {

// Through a cache that sees no write of the launch: ordered with its start alone, so that a thread
// which writes the same memory is found out.
template <typename T>
T load_read_only(const T* address) {
#if LOWBIT_MODEL_TSAN
  machine->read_only_cache.run([&] {
    acquire(&machine->launch_key);
    Engine::reads(address, sizeof(T));
    release(&machine->end_key);
  });
  const Unwatched unwatched;
#endif
  return *address;
}

// A look at memory that others may write. The thread then lets others run: it may be waiting.
template <typename Access>
uint32_t look(const Access& access) {
  const uint32_t value = access();
  const Unwatched unwatched;
  self().fiber->leave();
  return value;
}

inline uint32_t load_acquire(const uint32_t* address) {
  require_aligned(address, 4, "load_acquire");
  require_global(address, "load_acquire");
  const auto load = [address] {
    const uint32_t value = __atomic_load_n(address, __ATOMIC_ACQUIRE);
    acquire_view(address);
    return value;
  };
  return look(load);
}

inline void changed() {
  const Unwatched unwatched;
  ++machine->progress;
  maybe_switch();
}

inline void store_release(uint32_t* address, uint32_t value) {
  require_aligned(address, 4, "store_release");
  require_global(address, "store_release");
  release_view(address);
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
  changed();
}

inline uint32_t add_acquire_release(uint32_t* address, uint32_t value) {
  require_aligned(address, 4, "add_acquire_release");
  require_global(address, "add_acquire_release");
  acquire_view(address);
  release_view(address);
  const uint32_t before = __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
  changed();
  return before;
}

inline uint32_t atomic_add(uint32_t* address, uint32_t value) {
  require_aligned(address, 4, "atomic_add");
  const uint32_t before = __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  changed();
  return before;
}

inline uint32_t compare_exchange(uint32_t* address, uint32_t expected, uint32_t value) {
  require_aligned(address, 4, "compare_exchange");
  uint32_t before = expected;
  const bool stored = __atomic_compare_exchange_n(address, &before, value, false, __ATOMIC_RELAXED,
                                                  __ATOMIC_RELAXED);
  if (!stored) return look([before] { return before; });
  changed();
  return before;
}

inline uint32_t atomic_max(uint32_t* address, uint32_t value) {
  require_aligned(address, 4, "atomic_max");
  uint32_t before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(address, &before, value, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  changed();
  return before;
}

}  // namespace lowbit::cuda::model
