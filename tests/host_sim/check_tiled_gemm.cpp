// Random cases of tiled_gemm's kernel for sm_80 on the host model, each launched twice on the same
// buffers. Arguments: first seed, number of seeds.
#include "gemm_case.h"

#include "tiled_gemm.cuh"

using namespace lowbit::cuda;
using namespace lowbit::cuda::examples;

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    GemmCase example(seed, SmallGemmTile::kTileM, SmallGemmTile::kTileN);
    const TiledGemmConfig c = tiled_gemm_config(example.problem);
    const auto kernel =
        c.large ? tiled_gemm_kernel<LargeGemmTile> : tiled_gemm_kernel<SmallGemmTile>;
    for (int turn = 1; turn <= 2; ++turn) {
      example.refill();
      launch("tiled_gemm", kernel, {c.blocks(), c.threads, c.shared_bytes}, nullptr, example.p, c);
      example.compare(turn);
    }
  });
}
