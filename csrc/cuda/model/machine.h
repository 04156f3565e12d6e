// The modelled GPU while a kernel runs on it: threads, blocks, clusters, what they wait for, and
// the work of asynchronous units. scheduler.h runs it, running.h is what its threads do to it;
// ptx/*.cuh is what kernels see.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fiber.h"
#include "sanitizers.h"
#include "stack_image.h"

namespace lowbit::cuda::model {

struct Index3 {
  uint32_t x = 0, y = 0, z = 0;
};

// A draw for every decision of the schedule (xorshift64*, Vigna 2016).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull ^ 0x853c49e6748fea9bull) {
    if (state_ == 0) state_ = 1;
  }
  uint32_t below(uint32_t end) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    const auto high = static_cast<uint32_t>(state_ * 0x2545f4914f6cdd1dull >> 32);
    return static_cast<uint32_t>(uint64_t{high} * end >> 32);
  }
  bool one_in(uint32_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

// One cp.async: `bytes` of dst, the first `source_bytes` from src, the rest zeros.
struct AsyncCopy {
  char* dst;
  const char* src;
  uint32_t bytes, source_bytes;
};

// A bulk copy to global memory.
struct BulkStore {
  uint32_t group;
  EngineUse copy;
  bool done = false;
};

// What a thread has to do with the products of its warpgroup.
struct WarpgroupPart {
  struct Accumulator {
    std::vector<uint32_t> values;  // as after the products that have completed
    uint64_t last_product = 0;     // that adds to it
    uint32_t depth = 0;            // K of that product
    uint64_t fences = 0;           // before it
  };
  // Registers of A.
  struct Fragment {
    uint32_t values[4] = {};  // as the products read them
    uint64_t last_product = 0;
  };
  // In flight, by the address of the registers.
  std::map<void*, std::unique_ptr<Accumulator>> in_flight;
  std::map<const void*, Fragment> fragments;
  StackImage fenced;  // registers as at the last fence, or as products left them since
  std::set<const void*> came_back;  // accumulators, since the last fence
  uint64_t fences = 0;
  uint64_t issued = 0;           // products so far
  std::vector<uint64_t> groups;  // products issued before each commit
};

struct Block;

// A CUDA thread.
struct Thread {
  enum class State { kRunnable, kWaiting, kFinished };

  Block* block = nullptr;
  Fiber* fiber = nullptr;
  const char* stack_top = nullptr;  // the kernel's variables lie below
  uint32_t index = 0, lane = 0, warp = 0;
  State state = State::kFinished;
  size_t runnable_position = 0;
  std::string waits_for;        // stands in the report of a deadlock
  std::function<bool()> ready;  // looked at by the scheduler; empty where another thread wakes this
  std::vector<AsyncCopy> open_copies;              // issued, not yet committed
  std::deque<std::vector<AsyncCopy>> copy_groups;  // committed, oldest first
  std::list<BulkStore> bulk_stores;
  uint32_t bulk_stores_open = 0;  // not yet done
  uint32_t bulk_groups = 0;       // committed so far
  std::list<EngineUse> loads;     // copies to shared memory
  WarpgroupPart products;
};

// Threads that have come to a collective operation of their warp so far.
struct WarpMeeting {
  uint32_t mask = 0, arrived = 0;
  std::string operation;
  void* arguments[32] = {};
};

// Two keys in turn for the phases of a barrier: a thread that goes on late must not be ordered
// behind those who have come to the next phase already.
struct Phases {
  uint32_t completed = 0;
  Key keys[2];

  Key& current() { return keys[completed % 2]; }
};

struct NamedBarrier {
  uint32_t arrived = 0, expected = 0;
  uint32_t lanes[32] = {};  // that have arrived, of each warp
  std::vector<Thread*> waiting;
  Phases phases;
};

struct Mbarrier {
  uint32_t expected = 0;  // arrivals of a phase
  uint32_t pending = 0;   // arrivals still to come in this phase
  int64_t bytes = 0;      // announced less those that have come
  uint32_t parity = 0;    // of the phase in progress
  const Thread* initializer = nullptr;
  bool shown = false;                 // to the copy engine, by a fence of that thread
  Key keys[2];                        // of the phases of each parity
  std::vector<EngineUse*> copies[2];  // that have come, of the last phase of each parity
};

// Shared memory of a block: every array in the arena at a place of its own, with gaps between.
struct SharedMemory {
  static constexpr size_t kArenaBytes = 512 << 10;

  struct Piece {
    const void* key;
    size_t offset, bytes;
  };
  // An array of the dynamic shared memory, and the threads that have cut it out.
  struct Cut {
    size_t start, bytes;  // as the GPU would place it
    char* place;
    std::vector<bool> cutters;
  };
  char* arena = nullptr;
  size_t top = 0;
  std::vector<Piece> pieces;
  std::vector<Cut> cuts;
  size_t dynamic_bytes = 0;
};

struct Cluster;
struct GroupProduct;

// Products of the four warps of a warpgroup, in the order of their issue.
struct Warpgroup {
  std::deque<std::shared_ptr<GroupProduct>> products;  // not complete
  uint64_t completed = 0;
  std::deque<char> keys;  // what each that is complete did
};

// What setmaxnreg moves between the warps of a block.
struct RegisterBudget {
  struct Warp {
    uint32_t registers;             // of each thread
    std::vector<uint32_t> changes;  // what it set them to, in order
  };
  uint32_t all = 0, in_pool = 0;  // of the block; of no warp
  std::vector<Warp> warps;
};

struct Block {
  Index3 index;
  uint32_t rank = 0;  // in its cluster
  Cluster* cluster = nullptr;
  std::vector<Thread> threads;
  uint32_t finished = 0;
  SharedMemory shared;
  NamedBarrier barriers[16];
  std::vector<std::vector<WarpMeeting>> meetings;  // of each warp
  std::map<const void*, Mbarrier> mbarriers;
  std::vector<std::map<uint32_t, Phases>> warp_phases;  // of each warp, by the lanes that meet
  std::vector<Warpgroup> warpgroups;
  RegisterBudget registers;
};

struct Cluster {
  std::vector<Block*> blocks;
  uint32_t arrived = 0;
  uint32_t finished = 0;  // threads
  Phases phases;
};

// What an asynchronous unit will do at a time of the scheduler's choice.
struct Operation {
  Block* block;
  std::function<void()> complete;
  bool late;  // mostly waits until nothing else can go on
};

struct Machine {
  std::string kernel;
  Index3 grid, cluster_shape;
  uint32_t block_size = 0;
  size_t shared_bytes = 0;
  Random random{0};
  uint32_t elected_lane = 0;
  std::string error;
  Thread* running = nullptr;
  std::vector<Thread*> runnable;
  std::vector<Thread*> polling;
  std::vector<std::unique_ptr<Operation>> operations;
  std::function<void()> body;
  uint64_t progress = 0;  // grows with everything but looks at a flag that has not changed
  Engine read_only_cache;
  bool views_grew = false;  // of any thread: until then they are behind the launch alone
  // What the host did is released to the first key, what threads did to the second: blocks that run
  // one after the other are not ordered by it.
  char launch_key = 0, end_key = 0;
};

inline Machine* machine = nullptr;

}  // namespace lowbit::cuda::model
