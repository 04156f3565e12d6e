// What the asynchronous operations of a warp (copies by the copy engine, products) are ordered
// behind: less than the accesses of its threads are. They go through the async proxy, which sees
// what threads wrote only behind a proxy fence. So each warp has a view beside the clocks of its
// threads; both spread through whatever orders threads, and fence_async_proxy() alone takes from
// the clock of a thread to the view. A view for each thread would be more exact: but a fiber takes
// a megabyte, and lanes of a warp rarely differ in what they waited for.
#pragma once

#include <deque>
#include <list>

#include "sanitizers.h"

namespace lowbit::cuda::model {

// Of a phase of a barrier or whatever else orders threads: a place for clocks of threads and one
// for views.
struct Key {
  char generic = 0, async = 0;
};

// Engines of which each serves one operation at a time: who waits for one operation must not be
// ordered behind others in flight.
class EnginePool {
 public:
  void restart(void* start) {
    free_.clear();
    for (Engine& engine : engines_) {
      engine.restart(start);
      free_.push_back(&engine);
    }
  }
  Engine& take() {
    if (free_.empty()) return engines_.emplace_back();
    Engine& engine = *free_.front();
    free_.pop_front();
    return engine;
  }
  void give_back(Engine& engine) { free_.push_back(&engine); }

 private:
  std::list<Engine> engines_;
  std::deque<Engine*> free_;
};

// A copy. Its engine passes on all that it ever did, so it serves no other before somebody has come
// behind this one.
struct EngineUse {
  explicit EngineUse(EnginePool& pool) : pool(&pool), engine(&pool.take()) {}
  void end() {
    if (engine != nullptr) pool->give_back(*engine);
    engine = nullptr;
  }

  EnginePool* pool;
  Engine* engine;  // null once given back
  char key = 0;    // what the copy did
};

struct AsyncUnits {
  Engine view;  // accesses nothing that lasts
  Engine tensor_core;
  bool view_grew = false;  // since the last product
  EnginePool copies;

  // A new warp: it and its operations come behind `start`.
  void restart(void* start) {
    view.restart(start);
    tensor_core.restart(start);
    copies.restart(start);
    view_grew = false;
  }

  void release_to(void* key) {
    if (!view.idle()) view.release(key);
  }
  void acquire_from(void* key) {
    view.acquire(key);
    view_grew = true;
  }
  // By a thread.
  void fence() {
    release(&fenced_);
    acquire_from(&fenced_);
  }
  // What the view is behind, for another to acquire.
  void* seen() {
    view.release(&seen_);
    return &seen_;
  }
  // The same for the tensor core, which remembers what it was shown before.
  void show_tensor_core(void* key) {
    if (view_grew) view.release(key);
    view_grew = false;
  }

 private:
  char fenced_ = 0, seen_ = 0;
};

}  // namespace lowbit::cuda::model
