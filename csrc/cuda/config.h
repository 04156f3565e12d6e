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

// ---- prepack_weight and unpack_weight, between canonical rows and fragments ----

inline constexpr int kQuadRows = 4;
// Tiles side by side in a block: enough for 32 bytes of a canonical row's plane of one bit.
inline constexpr int kBlockTiles = 8;
inline constexpr int kRelayoutThreads = kBlockTiles * kPanelRows / kQuadRows;

struct RelayoutProblem {
  WeightFormat format;       // of the fragments
  uintptr_t packed_address;  // of addresses only the alignment matters
  uintptr_t rows_address;    // of the canonical rows
  int64_t row_stride;        // words
};

// A tile is 32 columns of a panel: a unit of the fragments, or those that fill whole words of every
// plane of canonical rows. A thread makes four rows of one, a quad, which are four lanes of the
// unit; a block all of the panel's rows of kBlockTiles tiles. Units begin anew in each group, so
// what a tile holds may stand in several tiles of the other layout.
struct RelayoutConfig {
  int64_t blocks;
  int threads;           // of a block
  uint32_t tiles;        // of a panel, to make; those of its last block may be fewer than threads
  Divisor panel_blocks;  // blocks of a panel
  Divisor block_k;
  Divisor group_units;  // units of each group but the last
  bool whole_lanes;     // four words of lanes lie on 16 bytes
  bool whole_rows;      // so do four words of a canonical row's plane
};

// Whether every plane of every row starts on 16 bytes.
constexpr bool starts_on_16_bytes(const RelayoutProblem& p) {
  if (p.rows_address % 16 != 0 || p.row_stride % 4 != 0) return false;
  int64_t start = 0;
  for (int remaining = p.format.bits; remaining > 0; remaining -= plane_width(remaining)) {
    if (start % 4 != 0) return false;
    start += plane_words(p.format.k, plane_width(remaining));
  }
  return true;
}

constexpr RelayoutConfig relayout_config(const RelayoutProblem& p, int64_t tiles) {
  RelayoutConfig c{};
  const int64_t panel_blocks = ceil_div(tiles, kBlockTiles);
  c.blocks = panel_count(p.format) * panel_blocks;
  c.threads = kRelayoutThreads;
  c.tiles = static_cast<uint32_t>(tiles);
  c.panel_blocks = make_divisor(panel_blocks);
  c.block_k = make_divisor(p.format.block_k);
  c.group_units = make_divisor(units_per_group(p.format));
  c.whole_lanes = p.packed_address % 16 == 0;
  c.whole_rows = starts_on_16_bytes(p);
  return c;
}

constexpr RelayoutConfig prepack_weight_config(const RelayoutProblem& p) {
  return relayout_config(p, panel_units(p.format));
}

constexpr RelayoutConfig unpack_weight_config(const RelayoutProblem& p) {
  return relayout_config(p, ceil_div(p.format.k, kFragmentUnitColumns));
}

inline std::string describe(const RelayoutConfig& c) {
  std::ostringstream text;
  text << c.blocks << " blocks of " << c.threads << " threads, " << c.panel_blocks.value
       << " a panel, for " << c.tiles << " tiles of 32 columns; lanes in "
       << (c.whole_lanes ? "16" : "4") << " bytes, rows in " << (c.whole_rows ? "up to 16" : "4");
  return text.str();
}

// ---- weight_only_linear ----

inline constexpr uint32_t kLinearThreads = 256, kLinearWarps = kLinearThreads / 32;
inline constexpr uint32_t kHalfPanelRows = 32;  // of the weight, a warp's
// Rows of x in a tile: up to 16 all costs the same, and registers leave room for a second block.
inline constexpr uint32_t kSmallTileM = 16, kLargeTileM = 64;
inline constexpr uint32_t kMostStages = 6;  // in flight and at work

// Units of 32 columns that a warp multiplies between two barriers: about 2 KiB of its codes.
LOWBIT_HOST_DEVICE constexpr uint32_t linear_stage_units(int bits) { return bits == 8 ? 2 : 4; }

struct LinearProblem {
  WeightFormat format;    // in fragments, block_n 1
  int64_t rows;           // of all parts of x
  int64_t parts;          // of x, whose products are added
  int64_t columns;        // of x: behind them it is 0
  int64_t scale_bytes;    // of an element
  int64_t zero_bytes;     // 0: none are stored
  int out_bytes;          // of an element
  uintptr_t out_address;  // only its alignment matters
  bool any_rows;          // the order of sums must not depend on `rows`
  int64_t multiprocessors;
  int64_t shared_bytes;  // that a block may have
};

// How warps and blocks share the product. A warp takes a half panel of the weight, 32 rows, and one
// of piece_warps * splits pieces of K.
struct LinearConfig {
  uint32_t tile_m;       // rows of x in a block
  uint32_t row_warps;    // warps of a block with rows of their own, a power of two; they share x
  uint32_t piece_warps;  // warps of a block with the same rows and a piece of K each
  uint32_t splits;       // blocks with the same rows, whose sums a second kernel adds
  uint32_t tiles_m, tiles_n;
  uint32_t rows, parts, columns;
  uint32_t units, stages;  // of K
  uint32_t groups;
  Divisor group_units;  // units of a group
  uint32_t scale_bytes, zero_bytes;
  uint32_t group_bytes;                            // scales and zeros of a half panel
  uint32_t depth;                                  // stages of the ring
  uint32_t stage_codes_bytes, stage_scales_bytes;  // a warp's
  uint32_t stage_x_bytes;                          // a piece's
  uint32_t exchange_floats;
  uint32_t padded_n;  // whole panels
  bool whole_stores;  // results go out four at a time, on their alignment
  uint32_t shared_bytes;

  constexpr int64_t blocks() const { return int64_t{tiles_n} * tiles_m * splits; }
  // Whether sums go through memory and the second kernel.
  constexpr bool adds_sums() const { return splits > 1 || parts > 1 || !whole_stores; }
};

// Groups that a stage may have a part of.
constexpr int64_t groups_of_stage(const WeightFormat& f) {
  const int64_t stage = linear_stage_units(f.bits), group = units_per_group(f);
  if (group % stage == 0) return 1;
  return stage % group == 0 ? stage / group : 2;  // a stage is 2 or 4 units
}

// The shared memory of a block with `depth` stages. A large tile of which half is there takes half.
constexpr LinearConfig with_memory(LinearConfig c, const LinearProblem& p, int64_t depth) {
  const WeightFormat& f = p.format;
  const auto number = [](int64_t value) { return static_cast<uint32_t>(value); };
  const int64_t columns = int64_t{linear_stage_units(f.bits)} * kFragmentUnitColumns;
  const int64_t rows = p.rows <= c.tile_m / 2 && c.tile_m > kSmallTileM ? c.tile_m / 2 : c.tile_m;
  c.depth = number(depth);
  c.group_bytes = number(kHalfPanelRows * (p.scale_bytes + p.zero_bytes));
  c.stage_codes_bytes = number(kHalfPanelRows * columns * f.bits / 8);
  c.stage_scales_bytes = number(groups_of_stage(f) * c.group_bytes);
  c.stage_x_bytes = number(rows * columns * 2);
  // Never more than the x of two stages.
  c.exchange_floats = number((c.piece_warps - 1) * c.row_warps * 32 * ceil_div(rows, 8) * 8);
  const auto aligned = [](int64_t bytes) { return ceil_div(bytes, 128) * 128; };
  c.shared_bytes = number(aligned(depth * kLinearWarps * c.stage_codes_bytes) +
                          aligned(depth * kLinearWarps * c.stage_scales_bytes) +
                          depth * c.piece_warps * c.stage_x_bytes);
  return c;
}

// As many stages as there is room for, two at least; two blocks share a multiprocessor where there
// are enough of them.
constexpr LinearConfig with_stages(LinearConfig c, const LinearProblem& p) {
  const bool two = c.tile_m == kSmallTileM && c.blocks() > p.multiprocessors;
  const int64_t room = two ? p.shared_bytes / 2 - 1024 : p.shared_bytes;
  LinearConfig fits = with_memory(c, p, 2);
  for (int64_t depth = 3; depth <= kMostStages; ++depth) {
    const LinearConfig deeper = with_memory(c, p, depth);
    if (deeper.shared_bytes <= room) fits = deeper;
  }
  return fits;
}

// One cut: `row_warps` of the block's eight warps side by side, `splits` blocks along K.
constexpr LinearConfig cut_linear(const LinearProblem& p, int64_t row_warps, int64_t splits) {
  const WeightFormat& f = p.format;
  const auto number = [](int64_t value) { return static_cast<uint32_t>(value); };
  LinearConfig c{};
  c.tile_m = p.rows <= kSmallTileM ? kSmallTileM : kLargeTileM;
  c.row_warps = number(row_warps);
  c.piece_warps = number(kLinearWarps / row_warps);
  c.splits = number(splits);
  c.tiles_m = number(ceil_div(p.rows, c.tile_m));
  c.tiles_n = number(ceil_div(ceil_div(f.n, kHalfPanelRows), row_warps));
  c.rows = number(p.rows);
  c.parts = number(p.parts);
  c.columns = number(p.columns);
  c.units = number(panel_units(f));
  c.stages = number(ceil_div(c.units, linear_stage_units(f.bits)));
  c.groups = number(scale_columns(f));
  c.group_units = make_divisor(units_per_group(f));
  c.scale_bytes = number(p.scale_bytes);
  c.zero_bytes = number(p.zero_bytes);
  c.padded_n = number(panel_count(f) * kPanelRows);
  c.whole_stores = p.out_bytes == 2 && f.n % 4 == 0 && p.out_address % (4 * uintptr_t{2}) == 0;
  return with_stages(c, p);
}

// About what a cut costs, in bytes of memory. The second-level cache is taken for 1.4 times as fast
// as memory (10/14); starting the second kernel takes as long as 8 MiB. With too few blocks a
// part of the GPU is idle. Not yet tuned on a GPU.
constexpr int64_t linear_cost(const LinearConfig& c, const LinearProblem& p) {
  const int64_t weight = panel_count(p.format) * panel_words(p.format) * 4 * c.tiles_m;
  const int64_t x = p.rows * p.columns * 2 * c.tiles_n;
  const int64_t sums = c.splits > 1 ? 8 * c.rows * int64_t{c.padded_n} * c.splits : 0;
  const int64_t busy = min_extent(c.blocks(), p.multiprocessors);
  const int64_t second_kernel = c.splits > 1 ? 8 << 20 : 0;
  return (weight + (x + sums) / 14 * 10) / busy * p.multiprocessors + second_kernel;
}

// Whether the shared memory suffices: with eight row warps it does on every device since sm_80,
// with fewer not for each kind of scales where a block has 99 KiB.
constexpr bool has_room(const LinearConfig& c, const LinearProblem& p) {
  return c.shared_bytes <= p.shared_bytes;
}

// The cheapest cut. Where the order of sums must not depend on the rows of x, it is that of one
// row, among the cuts that both tiles can have.
constexpr LinearConfig weight_only_linear_config(const LinearProblem& p) {
  LinearProblem choice = p, most = p;
  if (p.any_rows) choice.rows = 1, most.rows = kLargeTileM;
  LinearConfig best{};
  int64_t least = INT64_MAX;
  const bool small = choice.rows <= kSmallTileM && !p.any_rows;
  for (int64_t row_warps = small ? 1 : 4; row_warps <= kLinearWarps; row_warps *= 2) {
    for (int64_t splits = 1; splits <= 32; splits *= 2) {
      const LinearConfig cut = cut_linear(choice, row_warps, splits);
      const bool long_enough = splits == 1 || cut.stages / (cut.piece_warps * splits) >= 2;
      const int64_t cost = linear_cost(cut, choice);
      if (!long_enough || cost >= least || !has_room(cut_linear(most, row_warps, splits), most)) {
        continue;
      }
      least = cost;
      best = cut;
    }
  }
  return cut_linear(p, best.row_warps, best.splits);
}

inline std::string describe(const LinearConfig& c) {
  std::ostringstream text;
  text << c.tiles_n << " x " << c.tiles_m << " x " << c.splits << " blocks of " << kLinearThreads
       << " threads: " << c.row_warps * kHalfPanelRows << " rows of the weight by " << c.tile_m
       << " of x, K in " << c.piece_warps << " pieces a block, " << c.stages << " stages of K, "
       << c.depth << " in " << c.shared_bytes << " bytes of shared memory, "
       << (c.adds_sums() ? "sums by a second kernel" : "results at once");
  return text.str();
}

}  // namespace lowbit::cuda
