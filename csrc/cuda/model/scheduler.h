// Runs a launch on the model: blocks are admitted cluster by cluster while there is room, and one
// thread after another runs for a while, in an order drawn from a seed.
#pragma once

#include <algorithm>
#include <exception>
#include <mutex>
#include <numeric>

#include "waiting_report.h"

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

// Fibers and arenas outlive launches: making them costs more than a small kernel takes.
class Pool {
 public:
  std::unique_ptr<Fiber> take_fiber(Random& random) {
    if (fibers_.empty()) return std::make_unique<Fiber>();
    // By chance, for ThreadSanitizer takes all that ran on a fiber for one thread.
    std::swap(fibers_[random.below(static_cast<uint32_t>(fibers_.size()))], fibers_.back());
    auto fiber = std::move(fibers_.back());
    fibers_.pop_back();
    return fiber;
  }
  void give_back(std::unique_ptr<Fiber> fiber) { fibers_.push_back(std::move(fiber)); }

  char* take_arena() {
    if (arenas_.empty()) return allocate_arena();
    char* arena = arenas_.back();
    arenas_.pop_back();
    return arena;
  }
  void give_back(char* arena) { arenas_.push_back(arena); }

 private:
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<char*> arenas_;
};

class Scheduler {
 public:
  Scheduler(const Launch& launch, Pool& pool) : pool_(pool) {
    machine_.kernel = launch.kernel;
    machine_.grid = launch.grid;
    machine_.cluster_shape = launch.cluster;
    machine_.block_size = launch.block_size;
    machine_.shared_bytes = launch.shared_bytes;
    machine_.random = Random(settings.seed);
    machine_.elected_lane = Random(~settings.seed).below(32);
    machine_.body = launch.body;
    list_clusters();
    resident_ = settings.resident_blocks != 0 ? settings.resident_blocks : draw_resident();
    resident_ = std::max(resident_, cluster_size());
  }

  // After a launch that failed its fibers hold frames that never return: they are given up, for no
  // sanitizer lets go of such a fiber.
  ~Scheduler() {
    for (const auto& resident : resident_clusters_) {
      for (auto& fiber : resident->fibers) static_cast<void>(fiber.release());
    }
  }

  void run() {
    machine = &machine_;
    release(&machine_.launch_key);
    while (!waiting_clusters_.empty() || !resident_clusters_.empty()) {
      admit();
      step();
      if (!machine_.error.empty()) throw std::runtime_error(machine_.error);
    }
    acquire(&machine_.end_key);
    machine = nullptr;
  }

 private:
  // A cluster while it is on the machine.
  struct Resident {
    Cluster cluster;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Fiber>> fibers;
  };

  uint32_t cluster_size() const {
    return machine_.cluster_shape.x * machine_.cluster_shape.y * machine_.cluster_shape.z;
  }

  // ThreadSanitizer keeps the clock of every fiber of every other: few blocks at once.
  uint32_t draw_resident() { return 1 + machine_.random.below(LOWBIT_MODEL_TSAN ? 3 : 8); }

  void list_clusters() {
    const Index3 g = machine_.grid, c = machine_.cluster_shape;
    for (uint32_t z = 0; z < g.z; z += c.z)
      for (uint32_t y = 0; y < g.y; y += c.y)
        for (uint32_t x = 0; x < g.x; x += c.x) waiting_clusters_.push_back({x, y, z});
    for (size_t i = waiting_clusters_.size(); i > 1; --i) {
      std::swap(waiting_clusters_[i - 1],
                waiting_clusters_[machine_.random.below(static_cast<uint32_t>(i))]);
    }
  }

  void admit() {
    while (!waiting_clusters_.empty() && resident_count_ + cluster_size() <= resident_) {
      place(waiting_clusters_.back());
      waiting_clusters_.pop_back();
    }
  }

  void place(Index3 first) {
    resident_clusters_.push_back(std::make_unique<Resident>());
    Resident& resident = *resident_clusters_.back();
    const Index3 c = machine_.cluster_shape;
    for (uint32_t rank = 0; rank < cluster_size(); ++rank) {
      resident.blocks.push_back(std::make_unique<Block>());
      Block& block = *resident.blocks.back();
      block.index = {first.x + rank % c.x, first.y + rank / c.x % c.y,
                     first.z + rank / (c.x * c.y)};
      block.rank = rank;
      block.cluster = &resident.cluster;
      resident.cluster.blocks.push_back(&block);
      start(block, resident);
    }
    resident_count_ += cluster_size();
  }

  void start(Block& block, Resident& resident) {
    block.shared.arena = pool_.take_arena();
    block.shared.dynamic_bytes = machine_.shared_bytes;
    const uint32_t warps = (machine_.block_size + 31) / 32;
    block.meetings = std::vector<std::vector<WarpMeeting>>(warps);
    block.warp_phases.resize(warps);
    block.warpgroups = std::vector<Warpgroup>((warps + 3) / 4);
    block.registers = start_registers(machine_.block_size);
    block.threads = std::vector<Thread>(machine_.block_size);
    for (uint32_t i = 0; i < machine_.block_size; ++i) {
      Thread& thread = block.threads[i];
      resident.fibers.push_back(pool_.take_fiber(machine_.random));
      thread.block = &block;
      thread.fiber = resident.fibers.back().get();
      thread.index = i;
      thread.lane = i % 32;
      thread.warp = i / 32;
      thread.fiber->start(&Scheduler::thread_main);
      thread.fiber->async.restart(&machine_.launch_key);
      make_runnable(thread);
    }
  }

  // What a fiber runs.
  static void thread_main() {
    {
      const Unwatched unwatched;
      self().fiber->entered();
      self().stack_top = static_cast<const char*>(__builtin_frame_address(0));
    }
    acquire(&machine->launch_key);
    try {
      machine->body();
    } catch (const std::exception& error) {
      fail(error.what());
    }
    release(&machine->end_key);
    {
      const Unwatched unwatched;  // ends before the fiber does: the next thread on it is watched
      finish(self());
    }
    for (;;) self().fiber->leave();
  }

  static void finish(Thread& thread) {
    require(thread.open_copies.empty() && thread.copy_groups.empty(),
            "a thread must wait for its cp.async before it ends, got some in flight");
    require(thread.bulk_stores_open == 0,
            "a thread must wait for its bulk copies to global memory before it ends, got some in "
            "flight");
    require(thread.products.in_flight.empty(),
            "a thread must wait for its wgmma before it ends, got some in flight");
    check_changes(thread);
    ++thread.block->finished;
    ++thread.block->cluster->finished;
    complete_cluster_phase_if_due(*thread.block->cluster);
    ++machine->progress;
    stop_running(thread, Thread::State::kFinished);
  }

  void step() {
    if (machine_.runnable.empty() || machine_.random.one_in(16)) wake_polling();
    if (!machine_.operations.empty() && (machine_.runnable.empty() || machine_.random.one_in(16))) {
      complete_operation();
      return;
    }
    if (machine_.runnable.empty()) fail("deadlock: " + list_waiting());
    check_livelock();
    Thread& thread = pick();
    machine_.running = &thread;
    thread.fiber->enter();
    machine_.running = nullptr;
    if (thread.state == Thread::State::kFinished) retire(*thread.block->cluster);
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
           list_waiting());
    }
  }

  std::string list_waiting() const {
    std::string text;
    for (const auto& resident : resident_clusters_) {
      for (const auto& block : resident->blocks) append_waiting(text, *block);
    }
    const size_t clusters = waiting_clusters_.size();
    if (clusters > 0) text += ", " + std::to_string(clusters) + " clusters wait for room";
    for (const auto& resident : resident_clusters_) {
      for (const auto& block : resident->blocks) append_lacking(text, *block);
    }
    return text;
  }

  // Takes the cluster off the machine when its last thread has finished: until then its blocks may
  // reach each other's shared memory.
  void retire(Cluster& cluster) {
    for (const Block* block : cluster.blocks) {
      if (block->finished < machine_.block_size) return;
    }
    for (const auto& operation : machine_.operations) {
      if (operation->block->cluster == &cluster) {
        fail(
            "a block must wait for its asynchronous operations before it ends, got some in "
            "flight");
      }
    }
    const auto found = std::find_if(resident_clusters_.begin(), resident_clusters_.end(),
                                    [&](const auto& r) { return &r->cluster == &cluster; });
    for (const auto& block : (*found)->blocks) {
      check_gaps(*block);
      clear_shared(*block);
      pool_.give_back(block->shared.arena);
    }
    for (auto& fiber : (*found)->fibers) pool_.give_back(std::move(fiber));
    resident_count_ -= static_cast<uint32_t>(cluster.blocks.size());
    held_block_ = nullptr;
    resident_clusters_.erase(found);
  }

  Machine machine_;
  Pool& pool_;
  std::vector<Index3> waiting_clusters_;
  std::vector<std::unique_ptr<Resident>> resident_clusters_;
  uint32_t resident_ = 0, resident_count_ = 0;
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
