// How the example kernels are cut into blocks and tiles: pure functions from a problem to a config
// that can be printed. No CUDA and no torch, so that every choice can be looked at on any machine.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "weight_format.h"

namespace lowbit::cuda::examples {

// ---- vector_scale ----

inline constexpr int64_t kVectorScaleThreads = 256;
// Eight such blocks fill a multiprocessor; a few rounds of them leave little idle in the last.
inline constexpr int64_t kVectorScaleBlocksPerMultiprocessor = 32;
inline constexpr int64_t kPackBytes = 16;  // the widest access of a thread

struct VectorScaleProblem {
  int64_t count;
  int element_bytes;
  uintptr_t x_address, y_address;  // only their alignment matters
  int64_t multiprocessors;
};

// The array is `head` single elements up to the first 16-byte boundary, then packs of 16 bytes,
// then single elements again.
struct VectorScaleConfig {
  int64_t blocks, head, packs, singles;
};

constexpr VectorScaleConfig vector_scale_config(const VectorScaleProblem& p) {
  const auto misaligned = static_cast<int64_t>(p.x_address % kPackBytes);
  const bool alike = p.y_address % kPackBytes == p.x_address % kPackBytes;
  const int64_t per_pack = kPackBytes / p.element_bytes;
  const int64_t to_boundary = (kPackBytes - misaligned) % kPackBytes / p.element_bytes;
  const bool packed = alike && to_boundary < p.count;

  VectorScaleConfig c{};
  c.head = packed ? to_boundary : 0;
  c.packs = packed ? (p.count - c.head) / per_pack : 0;
  c.singles = p.count - c.packs * per_pack;
  const int64_t work = c.packs > c.singles ? c.packs : c.singles;
  const int64_t wanted = ceil_div(work, kVectorScaleThreads);
  const int64_t most = p.multiprocessors * kVectorScaleBlocksPerMultiprocessor;
  c.blocks = wanted < most ? wanted : most;
  return c;
}

// ---- tiled_gemm ----

// A tile of C that one block computes with mma.sync, kTileK columns of A and B at a time. Two
// blocks of the large tile fit on a multiprocessor of sm_80, so that one multiplies while the other
// starts or stores.
template <uint32_t kM, uint32_t kN>
struct GemmTile {
  static constexpr uint32_t kTileM = kM, kTileN = kN, kTileK = 32, kStages = 4;
  static constexpr uint32_t kWarpM = kM / 2, kWarpN = 32;  // of C, by one warp
  static constexpr uint32_t kWarpsM = kM / kWarpM, kWarpsN = kN / kWarpN;
  static constexpr uint32_t kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr uint32_t kRowBytes = kTileK * 2;
  static constexpr uint32_t kStageBytesA = kM * kRowBytes, kStageBytesB = kN * kRowBytes;
  static constexpr uint32_t kSharedBytes = kStages * (kStageBytesA + kStageBytesB);
};

using LargeGemmTile = GemmTile<128, 128>;
using SmallGemmTile = GemmTile<64, 64>;

// A tile of C that one block computes with wgmma: a warpgroup that loads, two that multiply 64 rows
// each. All three start with 168 registers a thread, what 65536 allow for 384 threads; the loading
// one gives up what the others take.
template <uint32_t kN>
struct Sm90GemmTile {
  static constexpr uint32_t kTileM = 128, kTileN = kN, kTileK = 64, kStages = 4;
  static constexpr uint32_t kConsumers = 2;  // warpgroups
  static constexpr uint32_t kThreads = 128 * (1 + kConsumers);
  static constexpr uint32_t kProducerRegisters = 40, kConsumerRegisters = 232;
  static constexpr uint32_t kRowBytes = kTileK * 2;
  static constexpr uint32_t kStageBytesA = kTileM * kRowBytes, kStageBytesB = kN * kRowBytes;
  static constexpr uint32_t kBarrierBytes = 2 * kStages * 8;
  static constexpr uint32_t kSharedBytes = kStages * (kStageBytesA + kStageBytesB) + kBarrierBytes;
};

using LargeSm90GemmTile = Sm90GemmTile<256>;
using SmallSm90GemmTile = Sm90GemmTile<128>;

struct TiledGemmProblem {
  int64_t m, n, k;
  int64_t c_stride;     // elements between rows of C
  uintptr_t c_address;  // only its alignment matters
  int64_t multiprocessors;
};

struct TiledGemmConfig {
  bool large;  // which of the two tiles
  uint32_t tile_m, tile_n, tile_k, stages, threads, shared_bytes;
  uint32_t tiles_m, tiles_n;  // of C
  uint32_t k_blocks;
  bool paired_stores;  // two neighbours of C lie on the alignment of both
  int64_t blocks() const { return int64_t{tiles_m} * tiles_n; }
};

template <typename Tile>
constexpr TiledGemmConfig cut_into(const TiledGemmProblem& p, bool large) {
  const auto tiles = [](int64_t extent, uint32_t tile) {
    return static_cast<uint32_t>(ceil_div(extent, tile));
  };
  return {large,
          Tile::kTileM,
          Tile::kTileN,
          Tile::kTileK,
          Tile::kStages,
          Tile::kThreads,
          Tile::kSharedBytes,
          tiles(p.m, Tile::kTileM),
          tiles(p.n, Tile::kTileN),
          tiles(p.k, Tile::kTileK),
          p.c_address % 4 == 0 && p.c_stride % 2 == 0};
}

// The large tile reads fewer bytes for each product; the small one keeps more multiprocessors busy
// where there are too few large ones to go round.
template <typename Large, typename Small>
constexpr TiledGemmConfig choose_tile(const TiledGemmProblem& p) {
  const TiledGemmConfig large = cut_into<Large>(p, true);
  return large.blocks() >= p.multiprocessors ? large : cut_into<Small>(p, false);
}

constexpr TiledGemmConfig tiled_gemm_config(const TiledGemmProblem& p) {
  return choose_tile<LargeGemmTile, SmallGemmTile>(p);
}

constexpr TiledGemmConfig tiled_gemm_sm90_config(const TiledGemmProblem& p) {
  return choose_tile<LargeSm90GemmTile, SmallSm90GemmTile>(p);
}

struct TileIndex {
  uint32_t m, n;
};

// Blocks take tiles in strips of eight tile rows, one tile column after the other: those that run
// at the same time share rows of A and B in the second-level cache.
LOWBIT_HOST_DEVICE constexpr TileIndex tile_of_block(uint32_t block, uint32_t tiles_m,
                                                     uint32_t tiles_n) {
  constexpr uint32_t kStripRows = 8;
  const uint32_t strip = block / (kStripRows * tiles_n);
  const uint32_t first = strip * kStripRows;
  const uint32_t rows = tiles_m - first < kStripRows ? tiles_m - first : kStripRows;
  const uint32_t place = block - first * tiles_n;
  return {first + place % rows, place / rows};
}

// ---- in words ----

inline std::string describe(const VectorScaleConfig& c) {
  std::ostringstream text;
  text << c.blocks << " blocks of " << kVectorScaleThreads << " threads, " << c.packs
       << " packs of 16 bytes, " << c.singles << " single elements, " << c.head << " of them first";
  return text.str();
}

inline std::string describe(const TiledGemmConfig& c) {
  std::ostringstream text;
  text << c.blocks() << " blocks of " << c.threads << " threads, tiles of " << c.tile_m << "x"
       << c.tile_n << "x" << c.tile_k << " (" << c.tiles_m << " by " << c.tiles_n << ", "
       << c.k_blocks << " steps of K), " << c.stages << " stages in " << c.shared_bytes
       << " bytes of shared memory, " << (c.paired_stores ? "4" : "2") << "-byte stores";
  return text.str();
}

}  // namespace lowbit::cuda::examples
