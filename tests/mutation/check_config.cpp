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
    }
  });
}
