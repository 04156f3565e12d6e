#include "low_rank.h"

#include <vector>

#include "../torch_checks.h"

#define LOWBIT_KERNEL_TEXT "low_rank.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

// Products that a thread should get at least; fewer cost less than waking it (about 10 us).
constexpr int64_t kGrainProducts = int64_t{1} << 17;

}  // namespace

void low_rank(const LowRankParams& p) {
  const auto convert = LOWBIT_FOR_CURRENT_ISA(convert_rows);
  const auto inner = LOWBIT_FOR_CURRENT_ISA(inner_products);
  const auto outer = LOWBIT_FOR_CURRENT_ISA(outer_products);
  const int64_t k = p.x.columns, rank = p.a.rows, rows = p.x.rows;
  parallel_for(rows, ceil_div(kGrainProducts, k),
               [&](int64_t begin, int64_t end) { convert(p, begin, end); });
  const int64_t block = scalar::kFactorRows;
  parallel_for(ceil_div(rank, block), ceil_div(kGrainProducts, block * k * rows),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> scratch(static_cast<size_t>(block * (k + kLanes)));
                 inner(p, scratch.data(), begin, end);
               });
  parallel_for(ceil_div(p.b.rows, kLanes), ceil_div(kGrainProducts, kLanes * (rank + 1) * rows),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> scratch(static_cast<size_t>(rank * kLanes));
                 outer(p, scratch.data(), begin, end);
               });
}

}  // namespace lowbit::cpu
