#include "low_rank.h"

#include <algorithm>

#include "../torch_checks.h"
#include "aligned_memory.h"

#define LOWBIT_KERNEL_TEXT "low_rank.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

// Products that a thread should get at least; fewer cost less than waking it (about 10 us).
constexpr int64_t kGrainProducts = int64_t{1} << 17;

// Runs tasks [0, count) with at most one share a thread, each with scratch memory of its own. It is
// allocated here because a body of parallel_for must not throw.
template <typename Run>
void run_shares(int64_t count, int64_t grain, int64_t scratch_floats, const Run& run) {
  const int64_t shares = std::min(num_threads(), ceil_div(count, grain));
  const AlignedMemory memory =
      aligned_memory(shares * scratch_floats * static_cast<int64_t>(sizeof(float)));
  auto* scratch = reinterpret_cast<float*>(memory.get());
  parallel_for(shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      run(scratch + share * scratch_floats, count * share / shares, count * (share + 1) / shares);
    }
  });
}

}  // namespace

void low_rank(const LowRankParams& p) {
  const auto convert = LOWBIT_FOR_CURRENT_ISA(convert_rows);
  const auto inner = LOWBIT_FOR_CURRENT_ISA(inner_products);
  const auto outer = LOWBIT_FOR_CURRENT_ISA(outer_products);
  const int64_t k = p.x.columns, rank = p.a.rows, rows = p.x.rows;
  parallel_for(rows, ceil_div(kGrainProducts, k),
               [&](int64_t begin, int64_t end) { convert(p, begin, end); });
  const int64_t block = scalar::kFactorRows;
  run_shares(ceil_div(rank, block), ceil_div(kGrainProducts, block * k * rows),
             block * (k + kLanes),
             [&](float* scratch, int64_t begin, int64_t end) { inner(p, scratch, begin, end); });
  run_shares(ceil_div(p.b.rows, kLanes), ceil_div(kGrainProducts, kLanes * (rank + 1) * rows),
             rank * kLanes,
             [&](float* scratch, int64_t begin, int64_t end) { outer(p, scratch, begin, end); });
}

}  // namespace lowbit::cpu
