// Random problems through the functions that cut kernels into blocks and tiles: what they choose is
// found a second time, by search. Arguments: first seed, number of seeds.
#include "config.h"

#include <algorithm>

#include "check_program.h"
#include "cuda/config.h"

using namespace lowbit;
using namespace lowbit::check_program;
namespace examples = lowbit::cuda::examples;

namespace {

void require(bool ok, const char* what) {
  if (!ok) wrong_value("%s", what);
}

// As few blocks as have a thread for each piece of work, but at most so many.
void require_blocks(int64_t blocks, int64_t threads, int64_t work, int64_t most) {
  const bool enough = blocks * threads >= work, needed = (blocks - 1) * threads < work;
  require(blocks <= most && needed && (enough || blocks == most), "blocks");
}

bool says(const std::string& text, const char* words) {
  return text.find(words) != std::string::npos;
}

void check_vector_scale(Random& random) {
  const int bytes = random.below(2) ? 2 : 4;
  const auto address = [&] { return static_cast<uintptr_t>(4096 + bytes * random.below(16)); };
  const examples::VectorScaleProblem p{.count = random.between(1, random.below(2) ? 20 : 50000),
                                       .element_bytes = bytes,
                                       .x_address = address(),
                                       .y_address = address(),
                                       .multiprocessors = random.between(1, 4)};
  const examples::VectorScaleConfig c = examples::vector_scale_config(p);
  const auto place = [&](uintptr_t start, int64_t i) { return (start + i * bytes) % 16; };
  int64_t head = 0;
  while (head < p.count && (place(p.x_address, head) || place(p.y_address, head))) ++head;
  if (head == p.count) head = 0;  // no element is on the boundary in both
  const bool packed = !place(p.x_address, head) && !place(p.y_address, head);
  const int64_t packs = packed ? (p.count - head) * bytes / 16 : 0;
  require(c.head == head, "head");
  require(c.packs == packs, "packs");
  require(c.singles + packs * 16 / bytes == p.count, "singles");
  require_blocks(c.blocks, 256, std::max(c.packs, c.singles), p.multiprocessors * 32);
}

template <typename Choose>
void check_tiled_gemm(Random& random, const Choose& choose, int64_t large_n, int64_t large_m,
                      int64_t small_n, int64_t small_m) {
  const examples::TiledGemmProblem p{.m = random.between(1, 2000),
                                     .n = random.between(1, 2000),
                                     .k = random.between(1, 500),
                                     .c_stride = random.between(1, 8),
                                     .c_address = static_cast<uintptr_t>(2 * random.below(8)),
                                     .multiprocessors = random.between(1, 100)};
  const examples::TiledGemmConfig c = choose(p);
  const bool large = ceil_div(p.m, large_m) * ceil_div(p.n, large_n) >= p.multiprocessors;
  require(c.large == large, "size of tiles");
  require(c.tile_m == (large ? large_m : small_m), "rows of a tile");
  require(c.tile_n == (large ? large_n : small_n), "columns of a tile");
  require(c.blocks() == ceil_div(p.m, c.tile_m) * ceil_div(p.n, c.tile_n), "tiles");
  bool paired = true;
  for (int64_t row = 0; row < 2; ++row) {
    paired = paired && (p.c_address + 2 * row * p.c_stride) % 4 == 0;
  }
  require(c.paired_stores == paired, "paired stores");
  require(says(describe(c), paired ? "4-byte" : "2-byte"), "description of stores");
}

// Strips of eight tile rows, column by column.
void check_tile_of_block(Random& random) {
  const auto tiles_m = static_cast<uint32_t>(random.between(1, 30));
  const auto tiles_n = static_cast<uint32_t>(random.between(1, 10));
  uint32_t block = 0;
  for (uint32_t first = 0; first < tiles_m; first += 8) {
    for (uint32_t n = 0; n < tiles_n; ++n) {
      for (uint32_t m = first; m < std::min(first + 8, tiles_m); ++m, ++block) {
        const examples::TileIndex tile = examples::tile_of_block(block, tiles_m, tiles_n);
        require(tile.m == m && tile.n == n, "tile of a block");
      }
    }
  }
}

void require_divides(const cuda::Divisor& divisor, int64_t by, Random& random) {
  for (int64_t n : {by - 1, by, random.below(INT32_MAX)}) {
    require(divisor.divide(static_cast<uint32_t>(n)) == n / by, "quotient");
  }
}

void check_dequantize(Random& random) {
  const int bytes = random.below(2) ? 2 : 4;
  const bool huge = random.below(2);
  cuda::DequantizeWeightProblem p{};
  p.format.n = random.between(1, huge ? INT32_MAX : 5000);
  p.format.k = random.below(2) ? 8 * random.between(1, 20) : random.between(1, 300);
  p.format.block_n = random.below(2) ? int64_t{1} << random.below(12) : random.between(1, 300);
  p.format.block_k = random.between(1, 300);
  p.output_bytes = bytes;
  p.out_address = static_cast<uintptr_t>(random.below(2) ? 0 : bytes * random.below(16));
  p.multiprocessors = random.between(1, huge ? 1 << 20 : 4);
  const cuda::DequantizeWeightConfig c = cuda::dequantize_weight_config(p);
  const int64_t row_runs = ceil_div(p.format.k, 32 / bytes);
  const int64_t most = std::min(p.multiprocessors * 32, int64_t{1} << 22);
  require_blocks(c.blocks, c.threads, p.format.n * row_runs, most);
  require(c.step_runs < row_runs, "runs of a step");
  require(c.step_rows * row_runs + c.step_runs == c.blocks * c.threads, "step");
  require_divides(c.row_runs, row_runs, random);
  require_divides(c.block_n, p.format.block_n, random);
  require_divides(c.block_k, p.format.block_k, random);
  bool whole = true;  // the ends of the first rows
  for (int64_t row = 0; row < 3; ++row) {
    whole = whole && (p.out_address + row * p.format.k * bytes) % 16 == 0;
  }
  require(c.whole_stores == whole, "whole stores");
  require(says(describe(c), whole ? "16-byte" : "single-element"), "description of stores");
}

// Groups one after the other, each in units of 32 columns.
int64_t count_units(const WeightFormat& f) {
  int64_t units = 0;
  for (int64_t group = 0; group < f.k; group += f.block_k) {
    for (int64_t at = group; at < std::min(group + f.block_k, f.k); at += 32) ++units;
  }
  return units;
}

void check_relayout(Random& random) {
  cuda::RelayoutProblem p{};
  p.format.bits = static_cast<int32_t>(random.between(1, 8));
  p.format.n = random.between(1, 300);
  p.format.k = random.below(2) ? 128 * random.between(1, 20) : random.between(1, 3000);
  p.format.block_k = random.below(2) ? 32 * random.between(1, 8) : random.between(1, 4000);
  p.format.layout = WeightLayout::kFragments;
  const auto address = [&] { return static_cast<uintptr_t>(random.below(3) ? 0 : 4) + 4096; };
  p.packed_address = address();
  p.rows_address = address();
  const int64_t row = row_words(p.format.k, p.format.bits);
  p.row_stride = random.below(2) ? row : row + random.below(4);

  bool whole = true;  // the planes of the first rows, which have words of widths 4, 2, 1 or 8
  for (int64_t r = 0; r < 2; ++r) {
    int64_t word = r * p.row_stride;
    for (int width : {8, 4, 2, 1}) {
      if (!(p.format.bits & width)) continue;
      whole = whole && (p.rows_address + 4 * word) % 16 == 0;
      word += ceil_div(p.format.k * width, 32);
    }
  }
  const int64_t units = count_units(p.format), runs = ceil_div(p.format.k, 32);
  for (int64_t tiles : {units, runs}) {
    const cuda::RelayoutConfig c =
        tiles == units ? cuda::prepack_weight_config(p) : cuda::unpack_weight_config(p);
    require(c.tiles == tiles, "tiles of a panel");
    require(c.threads == 16 * 8, "a thread for each quad of a panel's tiles");
    require(c.blocks == ceil_div(p.format.n, 64) * ceil_div(tiles, 8), "blocks");
    require_divides(c.panel_blocks, ceil_div(tiles, 8), random);
    require_divides(c.block_k, p.format.block_k, random);
    require_divides(c.group_units, ceil_div(std::min(p.format.block_k, p.format.k), 32), random);
    require(c.whole_lanes == (p.packed_address % 16 == 0), "whole lanes");
    require(c.whole_rows == whole, "whole rows");
    require(says(describe(c), c.whole_lanes ? "lanes in 16" : "lanes in 4"), "words on lanes");
    require(says(describe(c), whole ? "up to 16" : "rows in 4"), "words on rows");
  }
}

// ---- weight_only_linear ----

cuda::LinearProblem random_linear_problem(Random& random) {
  constexpr int kBits[] = {2, 3, 4, 8};
  cuda::LinearProblem p{};
  p.format.layout = WeightLayout::kFragments;
  p.format.bits = kBits[random.below(4)];
  p.format.n = random.between(1, random.below(2) ? 300 : 20000);
  p.format.k = random.between(1, random.below(2) ? 300 : 20000);
  p.format.block_n = 1;
  p.format.block_k = random.below(3) ? 32 * random.between(1, 8) : random.between(1, 300);
  p.parts = random.below(4) ? 1 : 3;
  p.rows = p.parts * random.between(1, random.below(2) ? 20 : 300);
  p.columns = p.format.k;
  p.scale_bytes = int64_t{1} << random.below(3);
  p.zero_bytes = random.below(2) ? 0 : int64_t{1} << random.below(3);
  p.out_bytes = random.below(4) ? 2 : 4;
  p.out_address = static_cast<uintptr_t>(2 * random.below(8));
  p.any_rows = random.below(3) == 0;
  p.multiprocessors = random.between(1, 200);
  p.shared_bytes = (random.below(2) ? 99 : 227) << 10;
  return p;
}

// The bytes of a ring of so many stages, written down once more.
int64_t linear_shared_bytes(const cuda::LinearProblem& p, const cuda::LinearConfig& c,
                            int64_t depth) {
  const WeightFormat& f = p.format;
  const int64_t stage_units = f.bits == 8 ? 2 : 4;
  const int64_t group = (std::min(f.block_k, f.k) + 31) / 32;
  int64_t most_groups = 0;  // in four units from any multiple of four on, for many of them
  for (int64_t first = 0; first < 64 * stage_units; first += stage_units) {
    const int64_t groups = (first + stage_units - 1) / group - first / group + 1;
    most_groups = std::max(most_groups, groups);
  }
  const int64_t rows = p.rows <= 16 ? 16 : p.rows <= 32 ? 32 : 64;
  const auto whole = [](int64_t bytes) { return (bytes + 127) / 128 * 128; };
  require(c.stage_scales_bytes == most_groups * 32 * (p.scale_bytes + p.zero_bytes),
          "scales of a stage");
  require(c.stage_x_bytes == rows * stage_units * 32 * 2, "x of a stage");
  return whole(depth * 8 * stage_units * 32 * 32 * f.bits / 8) +
         whole(depth * 8 * c.stage_scales_bytes) + depth * c.piece_warps * c.stage_x_bytes;
}

void check_cut(const cuda::LinearProblem& p, const cuda::LinearConfig& c) {
  const WeightFormat& f = p.format;
  require(c.row_warps * c.piece_warps == 8, "warps");
  require(c.tile_m == (p.rows <= 16 ? 16 : 64), "rows of a tile of x");
  require(c.tiles_m == (p.rows + c.tile_m - 1) / c.tile_m, "tiles of x");
  require(c.tiles_n == (f.n + 32 * c.row_warps - 1) / (32 * c.row_warps), "tiles of the weight");
  require(c.padded_n == (f.n + 63) / 64 * 64, "whole panels");
  require(c.stages == (c.units + (f.bits == 8 ? 1 : 3)) / (f.bits == 8 ? 2 : 4), "stages");
  require(c.whole_stores == (p.out_bytes == 2 && f.n % 4 == 0 && p.out_address % 8 == 0),
          "whole stores");
  require(c.adds_sums() == (c.splits > 1 || p.parts > 1 || !c.whole_stores), "second kernel");
  const bool two = c.tile_m == 16 && c.blocks() > p.multiprocessors;
  const int64_t room = two ? p.shared_bytes / 2 - 1024 : p.shared_bytes;
  int64_t depth = 2;
  while (depth < 6 && linear_shared_bytes(p, c, depth + 1) <= room) ++depth;
  require(c.depth == depth, "stages of the ring");
  require(c.shared_bytes == linear_shared_bytes(p, c, depth), "shared memory");
  const int64_t rows = p.rows <= 16 ? 16 : p.rows <= 32 ? 32 : 64;
  require(c.exchange_floats == (c.piece_warps - 1) * c.row_warps * rows * 32, "exchange of sums");
  require(c.exchange_floats * 4 <= c.depth * c.piece_warps * c.stage_x_bytes, "room for sums");
}

// The cost of a cut, written down once more.
int64_t linear_cost(const cuda::LinearProblem& p, const cuda::LinearConfig& c) {
  const WeightFormat& f = p.format;
  const int64_t weight = (f.n + 63) / 64 * 64 * c.units * 32 * f.bits / 8 * c.tiles_m;
  int64_t cached = p.rows * p.columns * 2 * c.tiles_n;
  if (c.splits != 1) cached += 8 * p.rows * ((f.n + 63) / 64 * 64) * c.splits;
  const int64_t work = weight + cached / 14 * 10;
  const int64_t busy = std::min(c.blocks(), p.multiprocessors);
  return work / busy * p.multiprocessors + (c.splits != 1 ? 8 * 1024 * 1024 : 0);
}

void check_linear(Random& random) {
  const cuda::LinearProblem p = random_linear_problem(random);
  const cuda::LinearConfig c = cuda::weight_only_linear_config(p);
  check_cut(p, c);
  require(c.shared_bytes <= p.shared_bytes, "shared memory of the device");
  require(says(describe(c), c.adds_sums() ? "second kernel" : "at once"), "description of sums");
  require(c.splits == 1 || c.stages / (c.piece_warps * c.splits) >= 2, "stages of a piece");
  cuda::LinearProblem seen = p;
  if (p.any_rows) {
    require(c.row_warps >= 4, "cut of both tiles");
    seen.rows = p.rows == 1 ? 64 : 1;
    const cuda::LinearConfig other = cuda::weight_only_linear_config(seen);
    require(other.row_warps == c.row_warps && other.splits == c.splits, "order for any rows");
    seen.rows = 1;
  }
  int64_t least = INT64_MAX, row_warps = 0, splits = 0;
  for (int64_t wide : {1, 2, 4, 8}) {
    if (wide < 4 && (p.any_rows || p.rows > 16)) continue;
    for (int64_t deep : {1, 2, 4, 8, 16, 32}) {
      const cuda::LinearConfig cut = cuda::cut_linear(seen, wide, deep);
      if (deep > 1 && cut.stages / (cut.piece_warps * deep) < 2) continue;
      cuda::LinearProblem largest = p;
      if (p.any_rows) largest.rows = 64;
      if (cuda::cut_linear(largest, wide, deep).shared_bytes > p.shared_bytes) continue;
      if (linear_cost(seen, cut) >= least) continue;
      least = linear_cost(seen, cut), row_warps = wide, splits = deep;
    }
  }
  require(c.row_warps == row_warps && c.splits == splits, "first of the cheapest cuts");
}

// What a few products are known to take: of weights that fill the GPU, one launch; of a low one,
// for which blocks share K, two; of many rows of x, weights side by side.
void check_known_cuts(Random&) {
  cuda::LinearProblem p{};
  p.format = {4, 8192, 8192, 1, 128, ZeroKind::kCode, WeightLayout::kFragments};
  p.rows = p.parts = 1;
  p.columns = 8192;
  p.scale_bytes = 2, p.zero_bytes = 1, p.out_bytes = 2;
  p.multiprocessors = 132, p.shared_bytes = 227 << 10;
  const cuda::LinearConfig one = cuda::weight_only_linear_config(p);
  require(one.splits == 1 && one.blocks() >= 128, "one row fills the GPU");
  p.rows = 64;
  require(cuda::weight_only_linear_config(p).row_warps == 8, "many rows share x");
  p.rows = 1, p.format.n = 512, p.format.k = p.columns = 28672;
  const cuda::LinearConfig low = cuda::weight_only_linear_config(p);
  require(low.splits > 1 && low.blocks() >= 64, "blocks share K of a low weight");
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int i = 0; i < 50; ++i) {
      check_vector_scale(random);
      check_tiled_gemm(random, examples::tiled_gemm_config, 128, 128, 64, 64);
      check_tiled_gemm(random, examples::tiled_gemm_sm90_config, 256, 128, 128, 128);
      check_tile_of_block(random);
      check_dequantize(random);
      check_linear(random);
      check_known_cuts(random);
      check_relayout(random);
    }
  });
}
