// mbarrier objects on the model: phases that complete when all arrivals and all announced bytes
// have come.
#pragma once

#include "shared_memory.h"

namespace lowbit::cuda::model {

inline std::string describe_mbarrier(const Block& owner, const void* address) {
  const auto offset = static_cast<const char*>(address) - owner.shared.arena;
  return "the mbarrier at byte " + std::to_string(offset) + " of shared memory of " +
         place_of(owner);
}

inline Mbarrier& mbarrier_at(Block& owner, const void* address) {
  const auto found = owner.mbarriers.find(address);
  require(found != owner.mbarriers.end(), "an mbarrier must be initialized before its use");
  return found->second;
}

// Every use reads the object: its initialization must be ordered before.
inline void touch_mbarrier(const void* address) {
  static_cast<void>(*static_cast<const volatile uint64_t*>(address));
}

inline void init_mbarrier(void* address, uint32_t arrivals) {
  *static_cast<volatile uint64_t*>(address) = arrivals;
  const Unwatched unwatched;
  shared_address(address);
  require_aligned(address, 8, "mbarrier_init");
  require(arrivals >= 1 && arrivals < 1u << 20, "arrivals of an mbarrier must be 1 to 1048575");
  const auto [at, is_new] = block().mbarriers.try_emplace(address);
  require(is_new, "an mbarrier must be invalidated before it is initialized again");
  at->second.initializer = &self();
  at->second.expected = at->second.pending = arrivals;
  maybe_switch();
}

// What fence.mbarrier_init and fence.proxy.async do for the mbarriers that their thread has
// initialized by now.
inline void show_mbarriers() {
  for (auto& [address, barrier] : block().mbarriers) {
    if (barrier.initializer == &self()) barrier.shown = true;
  }
}

inline void invalidate_mbarrier(void* address) {
  *static_cast<volatile uint64_t*>(address) = 0;
  const Unwatched unwatched;
  mbarrier_at(block(), address);
  block().mbarriers.erase(address);
}

inline void complete_phase_if_due(Mbarrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.parity ^= 1;
  barrier.copies[barrier.parity].clear();
  barrier.pending = barrier.expected;
  ++machine->progress;
}

inline void arrive(Block& owner, const void* address, uint32_t announced_bytes) {
  touch_mbarrier(address);
  const Unwatched unwatched;
  maybe_switch();
  Mbarrier& barrier = mbarrier_at(owner, address);
  require(barrier.pending > 0,
          "arrivals at an mbarrier must not exceed those of its phase, got one more");
  release(barrier.keys[barrier.parity]);
  barrier.bytes += announced_bytes;
  --barrier.pending;
  ++machine->progress;
  complete_phase_if_due(barrier);
}

// Called for a copy whose bytes have come. They may come before they are announced.
inline void arrive_bytes(Block& owner, const void* address, uint32_t bytes, EngineUse& copy) {
  Mbarrier& barrier = mbarrier_at(owner, address);
  barrier.copies[barrier.parity].push_back(&copy);
  barrier.bytes -= bytes;
  complete_phase_if_due(barrier);
}

// What a thread sees that has found the phase of this parity complete. Copies come one by one, not
// with all that the engine has done: those for other mbarriers may be in flight.
inline void acquire_phase(Mbarrier& barrier, uint32_t parity) {
  acquire(barrier.keys[parity]);
  for (EngineUse* copy : barrier.copies[parity]) acquire_copy(*copy);
}

inline bool test_phase(const void* address, uint32_t parity) {
  touch_mbarrier(address);
  const Unwatched unwatched;
  maybe_switch();
  require(parity <= 1, "the parity of a phase must be 0 or 1");
  Mbarrier& barrier = mbarrier_at(block(), address);
  const bool done = barrier.parity != parity;
  if (done) acquire_phase(barrier, parity);
  return done;
}

// Until the phase of this parity has completed; at once if the phase before it is in progress.
inline void wait_phase(const void* address, uint32_t parity) {
  touch_mbarrier(address);
  const Unwatched unwatched;
  maybe_switch();
  require(parity <= 1, "the parity of a phase must be 0 or 1");
  Block& owner = block();
  mbarrier_at(owner, address);
  // Looked up again each time: another thread may invalidate it.
  wait_until("parity " + std::to_string(parity) + " of " + describe_mbarrier(owner, address),
             [&owner, address, parity] {
               const auto found = owner.mbarriers.find(address);
               return found == owner.mbarriers.end() || found->second.parity != parity;
             });
  acquire_phase(mbarrier_at(owner, address), parity);
}

}  // namespace lowbit::cuda::model
