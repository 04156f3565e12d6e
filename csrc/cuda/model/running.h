// What the thread that runs does to the machine: it ends the launch, waits, wakes others, hands
// work to asynchronous units.
#pragma once

#include <stdexcept>

#include "machine.h"

namespace lowbit::cuda::model {

inline Thread& self() { return *machine->running; }
inline Block& block() { return *self().block; }

inline std::string place_of(const Block& block) {
  const Index3 at = block.index;
  return "block " + std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z);
}

inline std::string place_of(const Thread& thread) {
  return place_of(*thread.block) + ", thread " + std::to_string(thread.index);
}

// Ends the launch with this sentence, behind which the place is said. A thread that fails never
// runs again: what it would do next is undefined.
[[noreturn]] inline void fail(const std::string& sentence) {
  const Unwatched unwatched;
  const bool in_thread = machine->running != nullptr;
  if (machine->error.empty()) {
    machine->error = machine->kernel + ": " + sentence;
    if (in_thread) machine->error += " [" + place_of(self()) + "]";
  }
  if (!in_thread) throw std::runtime_error(machine->error);
  for (;;) self().fiber->leave();
}

inline void require(bool ok, const char* sentence) {
  if (!ok) fail(sentence);
}

inline void make_runnable(Thread& thread) {
  thread.state = Thread::State::kRunnable;
  thread.runnable_position = machine->runnable.size();
  machine->runnable.push_back(&thread);
  ++machine->progress;
}

inline void stop_running(Thread& thread, Thread::State state) {
  Thread* last = machine->runnable.back();
  machine->runnable[thread.runnable_position] = last;
  last->runnable_position = thread.runnable_position;
  machine->runnable.pop_back();
  thread.state = state;
}

// Suspends the thread until another calls make_runnable().
inline void suspend(std::string waits_for) {
  Thread& thread = self();
  thread.waits_for = std::move(waits_for);
  stop_running(thread, Thread::State::kWaiting);
  thread.fiber->leave();
}

// Suspends the thread until `ready` holds.
inline void wait_until(std::string waits_for, std::function<bool()> ready) {
  if (ready()) return;
  Thread& thread = self();
  thread.ready = std::move(ready);
  machine->polling.push_back(&thread);
  suspend(std::move(waits_for));
  thread.ready = nullptr;
}

// Lets other threads go first, now and then.
inline void maybe_switch() {
  if (machine->random.one_in(8)) self().fiber->leave();
}

// Hands work to an asynchronous unit.
inline void start_operation(std::function<void()> complete) {
  machine->operations.push_back(std::make_unique<Operation>(
      Operation{&block(), std::move(complete), machine->random.one_in(8)}));
  ++machine->progress;
}

}  // namespace lowbit::cuda::model
