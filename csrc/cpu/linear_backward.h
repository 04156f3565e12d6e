// What weight_only_linear_backward and its kernel text share: the geometry of a pass over grad.
#pragma once

#include "../weight_only_linear_backward.h"
#include "chunks.h"

namespace lowbit::cpu {

// Rows of grad whose products stay in registers, and lie side by side for that.
inline constexpr int64_t kStripRows = 48;

// Rows and columns of a task: its weights and sums stay in a second-level cache.
inline constexpr int64_t kMaxGradRows = 4 * kStripRows;
inline constexpr int64_t kSpanColumns = kMaxChunkColumns;

// Rows [first_row, first_row + rows) of grad, transposed once for all columns, and the cut of the
// columns: a task has span_chunks chunks, so that small scale groups share its work.
struct BackwardPass {
  const WeightOnlyLinearBackwardParams* params;
  Chunks chunks;
  int64_t span_chunks;
  int64_t spans;
  int64_t first_row;
  int64_t rows;
  int64_t padded_rows;  // rows rounded up to whole vectors
  int64_t block_rows;   // of a task, a multiple of kStripRows
  float* grad;          // [panel][strip][row of the panel][row of the strip]
};

}  // namespace lowbit::cpu
