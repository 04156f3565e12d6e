// Random cases of tiled_gemm's kernel for sm_90a on the host model, each launched and
// replayed twice on the same buffers. Arguments: first seed, number of seeds.
#include "gemm_case.h"

#include "tiled_gemm_sm90.cuh"

using namespace lowbit::cuda;
using namespace lowbit::cuda::examples;

namespace {

template <typename Tile>
void run(const TiledGemmParams& p, const TiledGemmConfig& c) {
  launch("tiled_gemm_sm90", tiled_gemm_sm90_kernel<Tile>, {c.blocks(), c.threads, c.shared_bytes},
         nullptr, map_of_a<Tile>(p), map_of_b<Tile>(p), p, c);
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    GemmCase example(seed, LargeSm90GemmTile{}, SmallSm90GemmTile{});
    const TiledGemmConfig c = tiled_gemm_sm90_config(example.problem);
    launch_and_replay([&] { example.refill(); },
                      [&] {
                        c.large ? run<LargeSm90GemmTile>(example.p, c)
                                : run<SmallSm90GemmTile>(example.p, c);
                      },
                      [&](int turn) { example.compare(turn); });
  });
}
