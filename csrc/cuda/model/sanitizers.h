// What the host model tells AddressSanitizer and ThreadSanitizer; nothing in other builds.
#pragma once

#include <sys/mman.h>

#include <cstddef>

#if defined(__SANITIZE_THREAD__)
#define LOWBIT_MODEL_TSAN 1
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* address, unsigned long size);
void __tsan_write_range(void* address, unsigned long size);
void __tsan_java_init(unsigned long start, unsigned long size);
void __tsan_java_alloc(void* address, unsigned long size);
void __tsan_java_free(void* address, unsigned long size);
}
#else
#define LOWBIT_MODEL_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define LOWBIT_MODEL_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define LOWBIT_MODEL_ASAN 0
#endif

namespace lowbit::cuda::model {

// For its lifetime memory accesses are the model's own, not those of the modelled program.
struct Unwatched {
#if LOWBIT_MODEL_TSAN
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unwatched() {}
  ~Unwatched() {}
#endif
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};

// What a thread did before release(key) happened before what another does after acquire(key).
// Only these order threads: that the model runs them one after the other does not count.
inline void release([[maybe_unused]] void* key) {
#if LOWBIT_MODEL_TSAN
  __tsan_release(key);
#endif
}

inline void acquire([[maybe_unused]] void* key) {
#if LOWBIT_MODEL_TSAN
  __tsan_acquire(key);
#endif
}

inline void poison([[maybe_unused]] const void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_ASAN
  __asan_poison_memory_region(address, size);
#endif
}

inline void unpoison([[maybe_unused]] const void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_ASAN
  __asan_unpoison_memory_region(address, size);
#endif
}

// Whole pages whose accesses so far are forgotten: ThreadSanitizer knows new memory by the mapping.
inline void forget_pages([[maybe_unused]] void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_TSAN
  mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
}

// Eights of bytes whose accesses so far are forgotten. What a runtime of Java tells of its heap is
// the one way to say so of less than a page; the heap itself is left without room, for reports
// search it for the object.
inline void forget_bytes([[maybe_unused]] void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_TSAN
  [[maybe_unused]] static const bool told = [] {
    __tsan_java_init(8, 8);
    return true;
  }();
  __tsan_java_free(address, size);
  __tsan_java_alloc(address, size);
#endif
}

// The fiber that no CUDA thread runs on, as ThreadSanitizer knows it: it is ordered behind the
// launch alone.
[[gnu::no_sanitize("thread")]] inline void*& scheduler_fiber() {
  static void* fiber = nullptr;
  return fiber;
}

// A unit of the hardware beside the threads: tensor cores, copy engines, the read-only cache. Its
// accesses are ordered with those of the threads by what it acquires and releases and by nothing
// else.
class Engine {
 public:
  Engine() = default;
  ~Engine() {
#if LOWBIT_MODEL_TSAN
    if (fiber_ != nullptr) __tsan_destroy_fiber(fiber_);
#endif
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Idle from here on; its next use comes behind what was released to `start`. It still passes on
  // what it did and acquired for an earlier warp on the same fiber, which another seed draws
  // otherwise.
  void restart(void* start) { start_ = start; }
  bool idle() const { return start_ != nullptr; }

  // The frames of these three belong to no fiber, so they must not be instrumented.
  [[gnu::no_sanitize("thread"), gnu::noinline]] void acquire([[maybe_unused]] void* key) {
#if LOWBIT_MODEL_TSAN
    void* caller = enter();
    __tsan_acquire(key);
    __tsan_switch_to_fiber(caller, __tsan_switch_to_fiber_no_sync);
#endif
  }
  [[gnu::no_sanitize("thread"), gnu::noinline]] void release([[maybe_unused]] void* key) {
#if LOWBIT_MODEL_TSAN
    void* caller = enter();
    __tsan_release(key);
    __tsan_switch_to_fiber(caller, __tsan_switch_to_fiber_no_sync);
#endif
  }
  // Runs `accesses` as the engine: it calls acquire, release, reads and writes, and only what the
  // last two name counts, not what it captured from its caller.
  template <typename Accesses>
  [[gnu::no_sanitize("thread"), gnu::noinline]] void run(
      [[maybe_unused]] const Accesses& accesses) {
#if LOWBIT_MODEL_TSAN
    void* caller = enter();
    {
      const Unwatched unwatched;
      accesses();
    }
    __tsan_switch_to_fiber(caller, __tsan_switch_to_fiber_no_sync);
#endif
  }

  // By whoever runs, within one Unwatched.
  static void reads([[maybe_unused]] const void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_TSAN
    const Watched watched;
    __tsan_read_range(const_cast<void*>(address), size);
#endif
  }
  static void writes([[maybe_unused]] void* address, [[maybe_unused]] size_t size) {
#if LOWBIT_MODEL_TSAN
    const Watched watched;
    __tsan_write_range(address, size);
#endif
  }

 private:
#if LOWBIT_MODEL_TSAN
  // For its lifetime accesses count again.
  struct Watched {
    Watched() {
      AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
      AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
    ~Watched() {
      AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
      AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    }
  };

  [[gnu::no_sanitize("thread"), gnu::noinline]] void* enter() {
    void* caller = __tsan_get_current_fiber();
    if (fiber_ == nullptr) {
      // A fiber comes after all that its maker did.
      __tsan_switch_to_fiber(scheduler_fiber(), __tsan_switch_to_fiber_no_sync);
      fiber_ = __tsan_create_fiber(0);
    }
    __tsan_switch_to_fiber(fiber_, __tsan_switch_to_fiber_no_sync);
    if (start_ != nullptr) __tsan_acquire(start_);
    start_ = nullptr;
    return caller;
  }
  void* fiber_ = nullptr;
#endif
  void* start_ = nullptr;
};

}  // namespace lowbit::cuda::model
