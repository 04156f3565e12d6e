// Shared memory: arrays, and 32-bit addresses of them for instructions that take no others.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/shared_memory.h"
#endif

// T* name: `count` elements of shared memory, aligned to `alignment` bytes.
#ifdef LOWBIT_HOST_MODEL
#define LOWBIT_SHARED_ARRAY(T, name, count, alignment)                      \
  static char name##_key;                                                   \
  T* const name = reinterpret_cast<T*>(::lowbit::cuda::model::shared_array( \
      &name##_key, sizeof(T) * (count), alignment < alignof(T) ? alignof(T) : alignment))
#else
#define LOWBIT_SHARED_ARRAY(T, name, count, alignment)                           \
  __shared__ alignas(alignment) unsigned char name##_bytes[sizeof(T) * (count)]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE uint32_t shared_address(const void* pointer) {
  return model::shared_address(pointer);
}

#else

LOWBIT_DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

#endif

// Cuts the dynamic shared memory of the launch into arrays, in the same way in every thread. The
// first alignment must be the largest. A second cutter starts at the same bytes again: of arrays
// that overlap, one over others must be taken before them.
class SharedMemoryCutter {
 public:
  template <typename T>
  LOWBIT_DEVICE T* take(uint32_t count, uint32_t alignment = alignof(T)) {
    offset_ = (offset_ + alignment - 1) / alignment * alignment;
    const uint32_t at = offset_;
    offset_ += count * sizeof(T);
#ifdef LOWBIT_HOST_MODEL
    return reinterpret_cast<T*>(model::dynamic_array(at, count * sizeof(T), alignment));
#else
    extern __shared__ __align__(1024) unsigned char lowbit_dynamic_shared[];
    return reinterpret_cast<T*>(lowbit_dynamic_shared + at);
#endif
  }

 private:
  uint32_t offset_ = 0;
};

}  // namespace lowbit::cuda
