// What the kernel texts of weight_only_linear share: the geometry of a pass over x, and the two
// entries of a kernel. Products are summed over a chunk of columns; then the scale is applied and
// the chunk is added to the output. The order is the same for every M and task split.
#pragma once

#include <algorithm>
#include <atomic>

#include "../weight_only_linear.h"
#include "chunks.h"
#include "isa.h"

namespace lowbit::cpu {

// x rows of a task: their outputs of one panel stay in the cache nearest to the core.
inline constexpr int64_t kMaxBlockRows = 128;

// Tiles take 16 rows, and their last ones may be padding.
inline constexpr int64_t kTileRows = 16;

// Rows [first_row, first_row + rows) of x, converted once for all panels, and their tasks: task t
// is panel t % panels of row block t / panels. A pass goes through the chunks [first_chunk,
// end_chunk) at a time; sums of the chunks before are kept in `partial`.
struct LinearPass {
  const WeightOnlyLinearParams* params;
  Chunks chunks;
  int64_t first_row;
  int64_t rows;
  int64_t padded_rows;  // rows rounded up to those of a tile
  int64_t block_rows;   // x rows of a task, a multiple of kTileRows
  int64_t first_chunk;
  int64_t end_chunk;
  float* partial;     // [panel][row][64], if there are chunks before or behind
  uint8_t* x;         // [chunk][padded row][row_bytes]
  int64_t row_bytes;  // of one row in one chunk
  float* x_scale;     // [chunk][padded row]; int8x2 only
  int32_t* x_sum;     // the same; int8x2 only: sums of both int8 planes as 16-bit halves
  float* x_total;     // the same; int8x2 and bf16: sum of x as the mode rounds it
};

// Hands the tasks [0, count) of a pass to its threads, in runs that get shorter towards the end: a
// thread that other processes hold up takes fewer.
class TaskQueue {
 public:
  TaskQueue(int64_t count, int64_t threads) : count_(count), threads_(threads) {}

  struct Run {
    int64_t begin, end;
  };
  // The next run; an empty one when all are taken.
  Run claim() {
    int64_t begin = next_.load(std::memory_order_relaxed);
    int64_t end = begin;
    do {
      end = std::min(begin + std::max<int64_t>((count_ - begin) / (2 * threads_), 1), count_);
    } while (begin < count_ && !next_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return {begin, end};
  }

 private:
  std::atomic<int64_t> next_ = 0;
  const int64_t count_;
  const int64_t threads_;
};

using MultiplyTasks = void (*)(const LinearPass& pass, TaskQueue& tasks);

// A kernel of one mode at one level of the instruction set.
struct LinearKernel {
  int64_t max_columns;   // of a chunk
  int64_t tile_columns;  // of a tile of x
  int64_t column_bytes;  // of x, in its packed form
  int64_t tile_rows;     // of x: its memory is made for whole tiles
  void (*pack_rows)(const LinearPass& pass, int64_t begin, int64_t end);
  MultiplyTasks multiply;  // runs on each thread
};

// Multiplies with it, on torch's threads.
void run_linear(const WeightOnlyLinearParams& p);

LinearKernel linear_exact(Isa isa);
LinearKernel linear_int8x2(const WeightOnlyLinearParams& p, Isa isa);
LinearKernel linear_bf16(Isa isa);

}  // namespace lowbit::cpu
