// Blocks from their admission to their end: clusters wait, in an order drawn from the seed, until
// there is room for all blocks of one.
#pragma once

#include <algorithm>
#include <exception>

#include "waiting_report.h"

namespace lowbit::cuda::model {

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

inline void finish(Thread& thread) {
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
  complete_barrier_if_due(*thread.block, thread.block->barriers[0]);
}

// What the fiber of a thread runs.
inline void thread_main() {
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

class Residents {
 public:
  Residents(Machine& machine, Pool& pool) : machine_(machine), pool_(pool) {}

  // After a launch that failed its fibers hold frames that never return: they are given up, for no
  // sanitizer lets go of such a fiber. The host, which frees what they used, comes behind them.
  ~Residents() {
    for (const auto& resident : residents_) {
      for (auto& fiber : resident->fibers) {
        fiber->release(&machine_.end_key);
        static_cast<void>(fiber.release());
      }
    }
    acquire(&machine_.end_key);
  }

  // All clusters of the launch, for room of so many blocks at once; 0 draws it.
  void queue(uint32_t room) {
    list_clusters();
    room_ = std::max(room != 0 ? room : draw_room(), cluster_size());
  }

  bool empty() const { return waiting_.empty() && residents_.empty(); }

  void admit() {
    while (!waiting_.empty() && taken_ + cluster_size() <= room_) {
      place(waiting_.back());
      waiting_.pop_back();
    }
  }

  // Takes the cluster off the machine if its last thread has finished: until then its blocks may
  // reach each other's shared memory.
  bool retire(Cluster& cluster) {
    for (const Block* block : cluster.blocks) {
      if (block->finished < machine_.block_size) return false;
    }
    for (const auto& operation : machine_.operations) {
      if (operation->block->cluster == &cluster) {
        fail(
            "a block must wait for its asynchronous operations before it ends, got some in "
            "flight");
      }
    }
    const auto found = std::find_if(residents_.begin(), residents_.end(),
                                    [&](const auto& r) { return &r->cluster == &cluster; });
    for (const auto& block : (*found)->blocks) {
      check_gaps(*block);
      clear_shared(*block);
      pool_.give_back(block->shared.arena);
    }
    for (auto& fiber : (*found)->fibers) pool_.give_back(std::move(fiber));
    taken_ -= static_cast<uint32_t>(cluster.blocks.size());
    residents_.erase(found);
    return true;
  }

  std::string list_waiting() const {
    std::string text;
    for (const auto& resident : residents_) {
      for (const auto& block : resident->blocks) append_waiting(text, *block);
    }
    const size_t clusters = waiting_.size();
    if (clusters > 0) text += ", " + std::to_string(clusters) + " clusters wait for room";
    for (const auto& resident : residents_) {
      for (const auto& block : resident->blocks) append_lacking(text, *block);
    }
    return text;
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
  uint32_t draw_room() { return 1 + machine_.random.below(LOWBIT_MODEL_TSAN ? 3 : 8); }

  void list_clusters() {
    const Index3 g = machine_.grid, c = machine_.cluster_shape;
    for (uint32_t z = 0; z < g.z; z += c.z)
      for (uint32_t y = 0; y < g.y; y += c.y)
        for (uint32_t x = 0; x < g.x; x += c.x) waiting_.push_back({x, y, z});
    for (size_t i = waiting_.size(); i > 1; --i) {
      std::swap(waiting_[i - 1], waiting_[machine_.random.below(static_cast<uint32_t>(i))]);
    }
  }

  void place(Index3 first) {
    residents_.push_back(std::make_unique<Resident>());
    Resident& resident = *residents_.back();
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
    taken_ += cluster_size();
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
      thread.fiber->start(&thread_main);
      thread.fiber->async.restart(&machine_.launch_key);
      make_runnable(thread);
    }
  }

  Machine& machine_;
  Pool& pool_;
  std::vector<Index3> waiting_;
  std::vector<std::unique_ptr<Resident>> residents_;
  uint32_t room_ = 0, taken_ = 0;  // blocks
};

}  // namespace lowbit::cuda::model
