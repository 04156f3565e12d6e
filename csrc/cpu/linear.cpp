// Cuts a linear into chunks of K, passes over x, and tasks, and runs a kernel on them.
#include "linear.h"

#include <algorithm>

#include "../torch_checks.h"
#include "aligned_memory.h"
#include "simd.h"

namespace lowbit::cpu {
namespace {

// Bytes of the converted x of a pass, and of its partial sums.
constexpr int64_t kPassBytes = int64_t{16} << 20;

// The x of a task's rows should stay in a second-level cache while panels stream by.
constexpr int64_t kBlockBytes = int64_t{1} << 20;

// Products that a thread should get at least; fewer cost less than waking it (about 10 us).
constexpr int64_t kGrainProducts = int64_t{1} << 18;

// Elements of x that a thread should convert at least.
constexpr int64_t kGrainElements = int64_t{1} << 13;

LinearKernel choose_kernel(const WeightOnlyLinearParams& p) {
  const Isa isa = current_isa();
  if (p.mode == LinearMode::kInt8x2) return linear_int8x2(p, isa);
  return p.mode == LinearMode::kBFloat16 ? linear_bf16(isa) : linear_exact(isa);
}

// x rows of a task: many, to decode a panel seldom, but tasks for every thread.
int64_t choose_block_rows(int64_t rows, int64_t panels) {
  const int64_t blocks = ceil_div(4 * num_threads(), panels);
  const int64_t shared = round_up(ceil_div(rows, blocks), kTileRows);
  return std::min(shared, kMaxBlockRows);
}

// Rows of a pass; a weight is decoded once for each.
int64_t choose_pass_rows(int64_t rows, int64_t row_bytes) {
  return std::min(round_up(std::max<int64_t>(kPassBytes / row_bytes, 1), kTileRows), rows);
}

// Chunks to go through at a time.
int64_t choose_slab(const Chunks& chunks, int64_t rows, int64_t row_bytes) {
  const int64_t cached = std::max<int64_t>(kBlockBytes / (rows * row_bytes), 1);
  return ceil_div(chunks.count, ceil_div(chunks.count, cached));
}

// The packed x of a pass and its side values.
class PassMemory {
 public:
  PassMemory(int64_t values, int64_t row_bytes) : values_(values), row_bytes_(row_bytes) {
    const int64_t bytes = values * (row_bytes + 3 * int64_t{sizeof(float)}) + kReadBehind;
    if (bytes > int64_t{sizeof small_}) large_ = aligned_memory(bytes);
  }
  void give(LinearPass& pass) {
    pass.x = large_ ? large_.get() : small_;
    pass.x_scale = reinterpret_cast<float*>(pass.x + values_ * row_bytes_);
    pass.x_total = pass.x_scale + values_;
    pass.x_sum = reinterpret_cast<int32_t*>(pass.x_total + values_);
  }

 private:
  // A kernel may read x where a unit of codes has columns behind those of its chunk.
  static constexpr int64_t kReadBehind = 64;

  int64_t values_;
  int64_t row_bytes_;
  AlignedMemory large_;
  alignas(64) uint8_t small_[16 << 10];  // one row of most layers: no allocation
};

void run_slab(const LinearPass& pass, const LinearKernel& kernel) {
  const WeightFormat& f = pass.params->weight.format;
  const int64_t tasks = panel_count(f) * ceil_div(pass.rows, pass.block_rows);
  const int64_t columns = (pass.end_chunk - pass.first_chunk) * pass.chunks.columns;
  const int64_t products = columns * kPanelRows * std::min(pass.block_rows, pass.rows);
  const int64_t worth = ceil_div(tasks * products, kGrainProducts);
  const int64_t threads = std::min({num_threads(), tasks, worth});
  TaskQueue queue(tasks, threads);
  parallel_for(threads, 1, [&](int64_t, int64_t) { kernel.multiply(pass, queue); });
}

void run_pass(LinearPass& pass, const LinearKernel& kernel) {
  const WeightFormat& f = pass.params->weight.format;
  parallel_for(pass.rows, ceil_div(kGrainElements, f.k),
               [&](int64_t begin, int64_t end) { kernel.pack_rows(pass, begin, end); });
  const int64_t slab = choose_slab(pass.chunks, pass.block_rows, pass.row_bytes);
  for (pass.first_chunk = 0; pass.first_chunk < pass.chunks.count; pass.first_chunk += slab) {
    pass.end_chunk = std::min(pass.first_chunk + slab, pass.chunks.count);
    run_slab(pass, kernel);
  }
}

}  // namespace

void run_linear(const WeightOnlyLinearParams& p) {
  const LinearKernel kernel = choose_kernel(p);
  LinearPass pass{};
  pass.params = &p;
  pass.chunks = cut_columns(p.weight.format, kernel.max_columns, kernel.tile_columns);
  pass.row_bytes = pass.chunks.width * kernel.column_bytes;
  const int64_t panels = panel_count(p.weight.format);
  const int64_t block_rows = choose_block_rows(p.m, panels);
  const bool whole = choose_slab(pass.chunks, block_rows, pass.row_bytes) == pass.chunks.count;
  const int64_t partial_bytes = whole ? 0 : panels * kPanelRows * int64_t{sizeof(float)};
  const int64_t pass_rows =
      choose_pass_rows(p.m, std::max(pass.chunks.count * pass.row_bytes, partial_bytes));
  PassMemory memory(pass.chunks.count * round_up(pass_rows, kernel.tile_rows), pass.row_bytes);
  memory.give(pass);
  AlignedMemory partial;
  if (!whole) partial = aligned_memory(pass_rows * partial_bytes);
  pass.partial = reinterpret_cast<float*>(partial.get());
  for (; pass.first_row < p.m; pass.first_row += pass_rows) {
    pass.rows = std::min(pass_rows, p.m - pass.first_row);
    pass.padded_rows = round_up(pass.rows, kernel.tile_rows);
    pass.block_rows = choose_block_rows(pass.rows, panels);
    run_pass(pass, kernel);
  }
}

}  // namespace lowbit::cpu
