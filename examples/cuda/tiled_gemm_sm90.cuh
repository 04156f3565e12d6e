// tiled_gemm on sm_90a. A block computes a tile of C; its warpgroups differ in what they do:
//
//   producer   A, B --copy engine--> ring of stages in shared memory
//   consumers  stage --wgmma--> sums in registers --> C, 64 rows of the tile each
//
// Two mbarriers for each stage order them. `full`: the stage's bytes have come. `empty`: every
// consumer warp is done with them.
#pragma once

#include "gemm_operands.cuh"

namespace lowbit::cuda::examples {

// The boxes that one copy moves: kTileK columns, one row of the 128-byte swizzle, by the tile's
// rows. Copies beyond the tensor bring zeros.
template <typename Tile>
TensorMap operand_map(const uint16_t* operand, int64_t stride, uint32_t rows, uint32_t k,
                      uint32_t tile_rows) {
  static_assert(Tile::kRowBytes == swizzle_bytes(Swizzle::k128Bytes));
  TensorMapSpec spec{};
  spec.address = const_cast<uint16_t*>(operand);  // a map does not say that it is only read
  spec.element_bytes = 2;
  spec.rank = 2;
  spec.sizes[0] = k, spec.sizes[1] = rows;
  spec.strides[0] = 2, spec.strides[1] = static_cast<uint64_t>(stride) * 2;
  spec.box[0] = Tile::kTileK, spec.box[1] = tile_rows;
  spec.swizzle = Swizzle::k128Bytes;
  return make_tensor_map(spec);
}

template <typename Tile>
TensorMap map_of_a(const TiledGemmParams& p) {
  return operand_map<Tile>(p.a, p.a_stride, p.m, p.k, Tile::kTileM);
}

template <typename Tile>
TensorMap map_of_b(const TiledGemmParams& p) {
  return operand_map<Tile>(p.b, p.b_stride, p.n, p.k, Tile::kTileN);
}

// Stages of the ring and the mbarriers of each.
template <typename Tile>
struct StageRing {
  uint8_t* a;
  uint8_t* b;
  Mbarrier* full;
  Mbarrier* empty;

  LOWBIT_DEVICE StageRing() {
    SharedMemoryCutter shared;
    // Eight rows of the swizzle are 1024 bytes: copies and wgmma permute by the address itself.
    a = shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesA, 1024);
    b = shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesB, 1024);
    full = shared.take<Mbarrier>(Tile::kStages);
    empty = shared.take<Mbarrier>(Tile::kStages);
  }

  LOWBIT_DEVICE void init() const {
    if (thread_index() == 0) {
      for (uint32_t stage = 0; stage < Tile::kStages; ++stage) {
        init_mbarrier(full + stage, 1);                      // the producer's, with its bytes
        init_mbarrier(empty + stage, 4 * Tile::kConsumers);  // one of each consumer warp
      }
      fence_mbarrier_init();  // shows them to the copy engine,
    }
    sync_block();  // and this to the threads
  }
};

// Where a thread is in the ring: the stage, and the parity of its mbarriers' phase, which turns at
// every round.
template <typename Tile>
struct RingPosition {
  uint32_t stage = 0, parity = 0;

  LOWBIT_DEVICE void advance() {
    if (++stage < Tile::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// By one thread.
template <typename Tile>
LOWBIT_DEVICE void load_stages(const StageRing<Tile>& ring, const TensorMap* map_a,
                               const TensorMap* map_b, uint32_t k_blocks, int32_t tile_row,
                               int32_t tile_column) {
  RingPosition<Tile> at;
  for (uint32_t k_block = 0; k_block < k_blocks; ++k_block, at.advance()) {
    // The consumers are done with the round before. In the first round there is none: waiting for
    // the other parity of a new mbarrier returns at once.
    wait_mbarrier(ring.empty + at.stage, at.parity ^ 1);
    arrive_mbarrier_expecting(ring.full + at.stage, Tile::kStageBytesA + Tile::kStageBytesB);
    const auto column = static_cast<int32_t>(k_block * Tile::kTileK);
    tensor_copy_to_shared(ring.a + at.stage * Tile::kStageBytesA, map_a, column, tile_row,
                          ring.full + at.stage);
    tensor_copy_to_shared(ring.b + at.stage * Tile::kStageBytesB, map_b, column, tile_column,
                          ring.full + at.stage);
  }
}

// One consumer's products with one stage; `row`: its first of the tile. The first product of all
// does not add but overwrite: setting the sums to zero would be a write to registers of products,
// for which ptxas makes every wgmma wait for the one before (its remark C7515).
template <typename Tile>
LOWBIT_DEVICE void multiply_stage(const StageRing<Tile>& ring, uint32_t stage, uint32_t row,
                                  bool adds, float (&sums)[Tile::kTileN / 2]) {
  constexpr uint32_t kEightRows = 8 * Tile::kRowBytes, kUnused = 16;  // pieces along K: one
  const uint8_t* a = ring.a + stage * Tile::kStageBytesA + row * Tile::kRowBytes;
  const uint8_t* b = ring.b + stage * Tile::kStageBytesB;
  const uint64_t rows = matrix_descriptor(a, kUnused, kEightRows, Swizzle::k128Bytes);
  const uint64_t columns = matrix_descriptor(b, kUnused, kEightRows, Swizzle::k128Bytes);
  fence_wgmma();  // the registers of the sums are the products' from here on
  LOWBIT_UNROLL
  for (uint32_t bytes = 0; bytes < Tile::kRowBytes; bytes += 32) {
    wgmma_float16<Tile::kTileN>(sums, advance_descriptor(rows, bytes),
                                advance_descriptor(columns, bytes), adds || bytes > 0);
  }
  commit_wgmma();
}

// Products of one stage run while the next is waited for. k_blocks is not 0.
template <typename Tile>
LOWBIT_DEVICE void multiply_stages(const StageRing<Tile>& ring, uint32_t k_blocks, uint32_t row,
                                   float (&sums)[Tile::kTileN / 2]) {
  RingPosition<Tile> at;
  uint32_t stage_before = 0;
  for (uint32_t k_block = 0; k_block < k_blocks; ++k_block, at.advance()) {
    wait_mbarrier(ring.full + at.stage, at.parity);
    multiply_stage(ring, at.stage, row, k_block > 0, sums);
    // All products but those just started are done: the stage before may be overwritten. A warp
    // speaks for itself, as the warps of a group need not wait at the same time.
    wait_wgmma<1>();
    if (k_block > 0 && lane_index() == 0) arrive_mbarrier(ring.empty + stage_before);
    stage_before = at.stage;
  }
  wait_wgmma(sums);
}

// A warp holds 16 of its group's 64 rows. Lane 4r + c: of each eight columns 2c and 2c + 1, of rows
// r and r + 8.
template <uint32_t kN>
LOWBIT_DEVICE void store_sums(const TiledGemmParams& p, bool paired_stores, uint32_t group_row,
                              uint32_t tile_column, const float (&sums)[kN / 2]) {
  const uint32_t row = group_row + warp_index() % 4 * 16 + lane_index() / 4;
  const uint32_t column = tile_column + lane_index() % 4 * 2;
  LOWBIT_UNROLL
  for (uint32_t i = 0; i < kN / 8; ++i) {
    const float* d = sums + 4 * i;
    store_pair(p, paired_stores, row, column + 8 * i, d[0], d[1]);
    store_pair(p, paired_stores, row + 8, column + 8 * i, d[2], d[3]);
  }
}

template <typename Tile>
LOWBIT_KERNEL(Tile::kThreads, 1)
tiled_gemm_sm90_kernel(const LOWBIT_GRID_CONSTANT TensorMap map_a,
                       const LOWBIT_GRID_CONSTANT TensorMap map_b, const TiledGemmParams p,
                       const TiledGemmConfig c) {
  const StageRing<Tile> ring;
  ring.init();
  const TileIndex tile = tile_of_block(block_index(), c.tiles_m, c.tiles_n);
  const uint32_t tile_row = tile.m * Tile::kTileM, tile_column = tile.n * Tile::kTileN;
  // The same in all lanes, which the compiler knows by the shuffle alone: descriptors, worked out
  // from it, then stay in the warp's own registers.
  const uint32_t group = shuffle(warp_index() / 4, 0);

  if (group == 0) {
    shrink_registers<Tile::kProducerRegisters>();
    if (thread_index() == 0) {
      load_stages(ring, &map_a, &map_b, c.k_blocks, static_cast<int32_t>(tile_row),
                  static_cast<int32_t>(tile_column));
    }
  } else {
    grow_registers<Tile::kConsumerRegisters>();
    const uint32_t row = (group - 1) * 64;
    float sums[Tile::kTileN / 2];
    multiply_stages(ring, c.k_blocks, row, sums);
    store_sums<Tile::kTileN>(p, c.paired_stores, tile_row + row, tile_column, sums);
  }
}

}  // namespace lowbit::cuda::examples
