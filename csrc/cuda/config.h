// How the kernels are cut into threads: pure functions from a problem to a config that can be
// printed. No CUDA and no torch, so that every choice can be looked at on any machine.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "../weight_format.h"

namespace lowbit::cuda {

// Division of n < 2^31 by a d that is known before the launch, with one multiplication in place of
// the fifteen or so instructions of a division. Granlund and Montgomery, "Division by invariant
// integers using multiplication", PLDI 1994, figure 4.1; the sum cannot overflow as n < 2^31.
struct Divisor {
  uint32_t value;
  uint32_t multiplier;
  uint32_t shift;

  LOWBIT_HOST_DEVICE constexpr uint32_t divide(uint32_t n) const {
    const auto high = static_cast<uint32_t>(static_cast<uint64_t>(n) * multiplier >> 32);
    return (high + n) >> shift;
  }
};

// For 1 <= value < 2^31.
constexpr Divisor make_divisor(int64_t value) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < value) ++shift;
  const uint64_t excess = (uint64_t{1} << shift) - static_cast<uint64_t>(value);
  const uint64_t multiplier = (excess << 32) / static_cast<uint64_t>(value) + 1;
  return {static_cast<uint32_t>(value), static_cast<uint32_t>(multiplier), shift};
}

// ---- dequantize_weight ----

inline constexpr int kDequantizeThreads = 256;
// Blocks of a launch for each multiprocessor: about six rounds of the five that fit at once, so
// that the last round leaves little idle. Not yet tuned on a GPU.
inline constexpr int64_t kDequantizeBlocksPerMultiprocessor = 32;
// Keeps every thread's index below 2^31.
inline constexpr int64_t kDequantizeMaxBlocks = int64_t{1} << 22;
inline constexpr int kStoreBytes = 16;
// Output of a run: one sector of memory, in two stores. Addresses, scale and zero are worked out
// once a run; at 16 bytes that alone would take longer than the memory does.
inline constexpr int kRunBytes = 32;

struct DequantizeWeightProblem {
  WeightFormat format;
  int output_bytes;       // of one element
  uintptr_t out_address;  // only its alignment matters
  int64_t multiprocessors;
};

// A thread decodes one run after the other: neighbouring columns of a row that fill kRunBytes
// of output. Runs are counted row after row, the last one of a row may be short; threads take them
// in turn, so neighbouring threads write neighbouring sectors.
struct DequantizeWeightConfig {
  int64_t blocks;
  int threads;       // of a block
  int run;           // columns
  Divisor row_runs;  // runs of a row
  Divisor block_n;
  Divisor block_k;
  uint32_t step_rows;  // from a thread's run to its next: so many rows,
  uint32_t step_runs;  // then so many runs
  bool whole_stores;   // rows are made of whole stores, each on its alignment
};

constexpr int64_t min_extent(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr DequantizeWeightConfig dequantize_weight_config(const DequantizeWeightProblem& p) {
  DequantizeWeightConfig c{};
  c.threads = kDequantizeThreads;
  c.run = kRunBytes / p.output_bytes;
  const int64_t row_runs = ceil_div(p.format.k, c.run);
  const int64_t wanted = ceil_div(p.format.n * row_runs, c.threads);
  const int64_t most = p.multiprocessors * kDequantizeBlocksPerMultiprocessor;
  c.blocks = min_extent(wanted, min_extent(most, kDequantizeMaxBlocks));
  c.row_runs = make_divisor(row_runs);
  c.block_n = make_divisor(p.format.block_n);
  c.block_k = make_divisor(p.format.block_k);
  const int64_t step = c.blocks * c.threads;
  c.step_rows = static_cast<uint32_t>(step / row_runs);
  c.step_runs = static_cast<uint32_t>(step % row_runs);
  c.whole_stores =
      p.format.k * p.output_bytes % kStoreBytes == 0 && p.out_address % kStoreBytes == 0;
  return c;
}

inline std::string describe(const DequantizeWeightConfig& c) {
  std::ostringstream text;
  text << c.blocks << " blocks of " << c.threads << " threads, runs of " << c.run << " columns, "
       << c.row_runs.value << " runs a row, steps of " << c.step_rows << " rows and " << c.step_runs
       << " runs, " << (c.whole_stores ? "16-byte" : "single-element") << " stores";
  return text.str();
}

}  // namespace lowbit::cuda
