// Random cases of tiled_gemm's kernel for sm_80 on the host model, each launched and
// replayed twice on the same buffers. Arguments: first seed, number of seeds.
#include "gemm_case.h"

#include "tiled_gemm.cuh"

using namespace lowbit::cuda;
using namespace lowbit::cuda::examples;

namespace {

// Every tile belongs to one block.
void check_tiles(CaseRandom& random) {
  const auto tiles_m = static_cast<uint32_t>(random.between(1, 40));
  const auto tiles_n = static_cast<uint32_t>(random.between(1, 40));
  std::vector<int> taken(tiles_m * tiles_n);
  for (uint32_t block = 0; block < tiles_m * tiles_n; ++block) {
    const TileIndex tile = tile_of_block(block, tiles_m, tiles_n);
    const bool inside = tile.m < tiles_m && tile.n < tiles_n;
    if (inside && ++taken[tile.m * tiles_n + tile.n] == 1) continue;
    std::printf("wrong value: tile %u, %u of %u, %u by block %u\n", tile.m, tile.n, tiles_m,
                tiles_n, block);
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    GemmCase example(seed, LargeGemmTile{}, SmallGemmTile{});
    check_tiles(example.random);
    const TiledGemmConfig c = tiled_gemm_config(example.problem);
    const auto kernel =
        c.large ? tiled_gemm_kernel<LargeGemmTile> : tiled_gemm_kernel<SmallGemmTile>;
    launch_and_replay([&] { example.refill(); },
                      [&] {
                        launch("tiled_gemm", kernel, {c.blocks(), c.threads, c.shared_bytes},
                               nullptr, example.p, c);
                      },
                      [&](int turn) { example.compare(turn); });
  });
}
