// Runs a launch on the model: one thread after another for a while, in an order drawn from a seed,
// and between them what asynchronous units do.
#pragma once

#include <algorithm>
#include <mutex>

#include "residents.h"

namespace lowbit::cuda::model {

// What the next launch does; tests set it.
struct Settings {
  uint64_t seed = 0;
  uint32_t resident_blocks = 0;  // at once; 0 draws it from the seed
};
inline Settings settings;

struct Launch {
  const char* kernel;
  Index3 grid, cluster;
  uint32_t block_size;
  size_t shared_bytes;
  std::function<void()> body;
};

class Scheduler {
 public:
  Scheduler(const Launch& launch, Pool& pool) : residents_(machine_, pool) {
    machine_.kernel = launch.kernel;
    machine_.grid = launch.grid;
    machine_.cluster_shape = launch.cluster;
    machine_.block_size = launch.block_size;
    machine_.shared_bytes = launch.shared_bytes;
    machine_.random = Random(settings.seed);
    machine_.elected_lane = Random(~settings.seed).below(32);
    machine_.body = launch.body;
    residents_.queue(settings.resident_blocks);
  }

  void run() {
    machine = &machine_;
    release(&machine_.launch_key);
    while (!residents_.empty()) {
      residents_.admit();
      step();
      if (!machine_.error.empty()) throw std::runtime_error(machine_.error);
    }
    machine = nullptr;
  }

 private:
  void step() {
    if (machine_.runnable.empty() || machine_.random.one_in(16)) wake_polling();
    if (!machine_.operations.empty() && (machine_.runnable.empty() || machine_.random.one_in(16))) {
      complete_operation();
      return;
    }
    if (machine_.runnable.empty()) fail("deadlock: " + residents_.list_waiting());
    check_livelock();
    Thread& thread = pick();
    machine_.running = &thread;
    thread.fiber->enter();
    machine_.running = nullptr;
    if (thread.state != Thread::State::kFinished) return;
    if (residents_.retire(*thread.block->cluster)) held_block_ = nullptr;
  }

  void wake_polling() {
    auto& polling = machine_.polling;
    for (size_t i = 0; i < polling.size();) {
      Thread& thread = *polling[i];
      if (thread.ready()) {
        polling[i] = polling.back();
        polling.pop_back();
        make_runnable(thread);
      } else {
        ++i;
      }
    }
  }

  void complete_operation() {
    auto& operations = machine_.operations;
    const uint32_t i = machine_.random.below(static_cast<uint32_t>(operations.size()));
    if (operations[i]->late && others_can_go_on() && !machine_.random.one_in(256)) return;
    const std::unique_ptr<Operation> operation = std::move(operations[i]);
    operations.erase(operations.begin() + i);
    ++machine_.progress;
    operation->complete();
  }

  bool others_can_go_on() const {
    const auto& operations = machine_.operations;
    return !machine_.runnable.empty() || std::any_of(operations.begin(), operations.end(),
                                                     [](const auto& o) { return !o->late; });
  }

  // Mostly any thread; for stretches one warp is held back while others can run, which no uniform
  // draw would do.
  Thread& pick() {
    Random& random = machine_.random;
    const auto count = static_cast<uint32_t>(machine_.runnable.size());
    if (stretch_ == 0) {
      stretch_ = 1 + random.below(256);
      const Thread& some = *machine_.runnable[random.below(count)];
      held_block_ = random.one_in(2) ? some.block : nullptr;
      held_warp_ = some.warp;
    }
    --stretch_;
    for (int attempt = 0; attempt < 8; ++attempt) {
      Thread& thread = *machine_.runnable[random.below(count)];
      if (thread.block != held_block_ || thread.warp != held_warp_) return thread;
    }
    return *machine_.runnable[random.below(count)];
  }

  // Threads that look at flags run for ever; when none of them has seen a change for this many
  // steps, none will.
  void check_livelock() {
    constexpr uint64_t kSteps = 400000;
    if (machine_.progress != seen_progress_) {
      seen_progress_ = machine_.progress;
      idle_steps_ = 0;
    } else if (++idle_steps_ > kSteps) {
      fail("deadlock: every thread that can run looks at a flag which no longer changes; " +
           residents_.list_waiting());
    }
  }

  Machine machine_;
  Residents residents_;
  uint32_t stretch_ = 0, held_warp_ = 0;
  const Block* held_block_ = nullptr;
  uint64_t seen_progress_ = 0, idle_steps_ = 0;
};

// One launch at a time, as on one stream.
inline void run(const Launch& launch) {
  static std::mutex one_at_a_time;
  static Pool pool;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  const Unwatched unwatched;
  try {
    // Not on the stack, which the host goes on to use: it is ordered with no thread that failed.
    std::make_unique<Scheduler>(launch, pool)->run();
  } catch (...) {
    machine = nullptr;
    throw;
  }
}

}  // namespace lowbit::cuda::model
