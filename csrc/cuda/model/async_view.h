// What the asynchronous operations of a CUDA thread (copies of the copy engine, products) are
// ordered behind: less than the thread's own accesses are. They go through the async proxy, which
// sees what threads wrote only behind a proxy fence. So each thread has two clocks, its own and
// that of its view; both spread through whatever orders threads, and fence_async_proxy() alone
// takes from the first to the second.
#pragma once

#include "sanitizers.h"

namespace lowbit::cuda::model {

// Of a phase of a barrier or whatever else orders threads: a place for each of the two clocks.
struct Key {
  char generic = 0, async = 0;
};

// Engines beside a CUDA thread; of operations in flight each has only what they may see.
struct AsyncUnits {
  Engine view;  // accesses nothing that lasts
  Engine loads, stores;
  Engine tensor_core;      // of the warp whose first lane the thread is
  bool view_grew = false;  // since its last product

  // A new thread: it and its operations come behind `start`.
  void restart(void* start) {
    for (Engine* unit : {&view, &loads, &stores, &tensor_core}) unit->restart(start);
    view_grew = false;
  }

  void release_to(void* key) {
    if (!view.idle()) view.release(key);
  }
  void acquire_from(void* key) {
    view.acquire(key);
    view_grew = true;
  }
  // By the thread.
  void fence() {
    release(&fenced_);
    acquire_from(&fenced_);
  }
  // What the view is behind, for another engine to acquire.
  void* seen() {
    view.release(&seen_);
    return &seen_;
  }

 private:
  char fenced_ = 0, seen_ = 0;
};

}  // namespace lowbit::cuda::model
