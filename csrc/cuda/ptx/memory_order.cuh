// Global memory between threads: loads, stores and sums that order others, and the read-only path.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/global_memory.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

template <typename T>
LOWBIT_DEVICE T load_constant(const T* address) {
  return model::load_read_only(address);
}

LOWBIT_DEVICE void load_8_bytes(uint32_t (&words)[2], const void* address) {
  model::require_aligned(address, 8, "load_8_bytes");
  std::memcpy(words, address, 8);
}

LOWBIT_DEVICE void load_16_bytes(uint32_t (&words)[4], const void* address) {
  model::require_aligned(address, 16, "load_16_bytes");
  std::memcpy(words, address, 16);
}

LOWBIT_DEVICE void store_8_bytes(void* address, const uint32_t (&words)[2]) {
  model::require_aligned(address, 8, "store_8_bytes");
  std::memcpy(address, words, 8);
}

LOWBIT_DEVICE void store_16_bytes(void* address, const uint32_t (&words)[4]) {
  model::require_aligned(address, 16, "store_16_bytes");
  std::memcpy(address, words, 16);
}

LOWBIT_DEVICE uint32_t load_acquire(const uint32_t* address) {
  return model::load_acquire(address);
}

LOWBIT_DEVICE void store_release(uint32_t* address, uint32_t value) {
  model::store_release(address, value);
}

LOWBIT_DEVICE uint32_t add_acquire_release(uint32_t* address, uint32_t value) {
  return model::add_acquire_release(address, value);
}

LOWBIT_DEVICE uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return model::atomic_add(address, value);
}

LOWBIT_DEVICE uint32_t atomic_max(uint32_t* address, uint32_t value) {
  return model::atomic_max(address, value);
}

LOWBIT_DEVICE uint32_t compare_exchange(uint32_t* address, uint32_t expected, uint32_t value) {
  return model::compare_exchange(address, expected, value);
}

#else

// Reads memory that no thread of the launch writes.
template <typename T>
LOWBIT_DEVICE T load_constant(const T* address) {
  return __ldg(address);
}

// The GPU stops a kernel at a misaligned access.
LOWBIT_DEVICE void load_8_bytes(uint32_t (&words)[2], const void* address) {
  const uint2 loaded = *static_cast<const uint2*>(address);
  words[0] = loaded.x, words[1] = loaded.y;
}

LOWBIT_DEVICE void load_16_bytes(uint32_t (&words)[4], const void* address) {
  const uint4 loaded = *static_cast<const uint4*>(address);
  words[0] = loaded.x, words[1] = loaded.y, words[2] = loaded.z, words[3] = loaded.w;
}

// In asm, because the compiler takes stores of several words apart where it can share them with
// another path.
LOWBIT_DEVICE void store_8_bytes(void* address, const uint32_t (&words)[2]) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(words[0]), "r"(words[1])
               : "memory");
}

LOWBIT_DEVICE void store_16_bytes(void* address, const uint32_t (&words)[4]) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(words[0]),
               "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

// What the writer of the value did before its release is visible after; scope of the GPU.
LOWBIT_DEVICE uint32_t load_acquire(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}

// Orders what this thread did, and what it has seen through barriers, before the value.
LOWBIT_DEVICE void store_release(uint32_t* address, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// Returns the value before.
LOWBIT_DEVICE uint32_t add_acquire_release(uint32_t* address, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
}

// Those below order nothing, in shared or global memory.
LOWBIT_DEVICE uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return atomicAdd(address, value);
}
LOWBIT_DEVICE uint32_t atomic_max(uint32_t* address, uint32_t value) {
  return atomicMax(address, value);
}
LOWBIT_DEVICE uint32_t compare_exchange(uint32_t* address, uint32_t expected, uint32_t value) {
  return atomicCAS(address, expected, value);
}

#endif

// Waits for the flag to reach `value`. Its writer must be running or have run: a block that waits
// for one with a higher number may wait for ever.
LOWBIT_DEVICE void wait_at_least(const uint32_t* flag, uint32_t value) {
  while (load_acquire(flag) < value) {
  }
}

}  // namespace lowbit::cuda
