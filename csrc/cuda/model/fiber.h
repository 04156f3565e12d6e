// Fibers: call stacks that the model's scheduler switches between, each known to the sanitizers.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "async_view.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace lowbit::cuda::model {

#ifdef __x86_64__

// Saves the registers that a call preserves and the stack pointer in *saved, and goes on where
// `next` was saved. glibc's swapcontext does the same with two system calls.
extern "C" void lowbit_model_switch(void** saved, void* next);
asm(R"(
.pushsection .text
.weak lowbit_model_switch
.hidden lowbit_model_switch
.type lowbit_model_switch, @function
lowbit_model_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.popsection
)");

class Context {
 public:
  void start(char* stack, size_t size, void (*entry)()) {
    auto* top = reinterpret_cast<void**>(stack + size - 64);
    *--top = nullptr;  // the return address of entry, which never returns
    *--top = reinterpret_cast<void*>(entry);
    for (int preserved = 0; preserved < 6; ++preserved) *--top = nullptr;
    pointer_ = top;
  }
  void switch_to(Context& next) { lowbit_model_switch(&pointer_, next.pointer_); }

 private:
  void* pointer_ = nullptr;
};

#else

class Context {
 public:
  void start(char* stack, size_t size, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = size;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  void switch_to(Context& next) { swapcontext(&context_, &next.context_); }

 private:
  ucontext_t context_{};
};

#endif

// A stack with a guard page, which starts anew for every CUDA thread that it serves.
class Fiber {
 public:
  Fiber() {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("host model: no memory for stacks");
    stack_ = static_cast<char*>(memory);
    mprotect(stack_, kGuardBytes, PROT_NONE);
#if LOWBIT_MODEL_TSAN
    tsan_ = __tsan_create_fiber(0);
#endif
  }
  ~Fiber() {
#if LOWBIT_MODEL_TSAN
    __tsan_destroy_fiber(tsan_);
#endif
    munmap(stack_, kStackBytes);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(void (*entry)()) {
    // Of the thread before only the outermost frame is left, which never returned.
    unpoison(stack_ + kStackBytes - kFrameBytes, kFrameBytes);
    fake_stack_ = nullptr;
    context_.start(stack_, kStackBytes, entry);
  }

  const char* stack() const { return stack_; }  // its lowest byte

  // From the scheduler into the fiber, until the fiber calls leave().
  void enter() {
#if LOWBIT_MODEL_ASAN
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack_, kStackBytes);
#endif
#if LOWBIT_MODEL_TSAN
    scheduler_fiber() = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
    scheduler().switch_to(context_);
#if LOWBIT_MODEL_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  // From the fiber back to the scheduler.
  void leave() {
#if LOWBIT_MODEL_ASAN
    __sanitizer_start_switch_fiber(&fake_stack_, scheduler_stack().address, scheduler_stack().size);
#endif
#if LOWBIT_MODEL_TSAN
    __tsan_switch_to_fiber(scheduler_fiber(), __tsan_switch_to_fiber_no_sync);
#endif
    context_.switch_to(scheduler());
    entered();
  }

  // All that ran here is released to `key`, by the scheduler.
  [[gnu::no_sanitize("thread"), gnu::noinline]] void release([[maybe_unused]] void* key) {
#if LOWBIT_MODEL_TSAN
    void* caller = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
    __tsan_release(key);
    __tsan_switch_to_fiber(caller, __tsan_switch_to_fiber_no_sync);
#endif
  }

  // First thing on a fiber's stack after every switch to it.
  void entered() {
#if LOWBIT_MODEL_ASAN
    __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack().address,
                                    &scheduler_stack().size);
#endif
  }

  AsyncUnits async;  // of the warp whose first lane runs here

 private:
  static constexpr size_t kStackBytes = 256 << 10;
  static constexpr size_t kGuardBytes = 4096;
  static constexpr size_t kFrameBytes = 4096;

  struct Stack {
    const void* address = nullptr;
    size_t size = 0;
  };
  static Context& scheduler() {
    static Context context;
    return context;
  }
  static Stack& scheduler_stack() {
    static Stack stack;
    return stack;
  }
#if LOWBIT_MODEL_TSAN
  void* tsan_ = nullptr;
#endif
  char* stack_ = nullptr;
  void* fake_stack_ = nullptr;
  Context context_;
};

}  // namespace lowbit::cuda::model
