// tiled_gemm on sm_80 and later. A block computes a tile of C:
//
//   A, B --cp.async--> ring of stages in shared memory --ldmatrix--> fragments --mma.sync--> sums
//
// The ring is filled kStages - 1 steps of K ahead, so that the memory's latency is spent on
// multiplying what came before.
#pragma once

#include "gemm_operands.cuh"

namespace lowbit::cuda::examples {

// Offset in a stage of 16 bytes of a row. ldmatrix reads such pieces of eight neighbouring rows at
// once: without the swizzle they would lie in two of the eight groups of banks.
template <typename Tile>
LOWBIT_DEVICE constexpr uint32_t piece_offset(uint32_t row, uint32_t piece) {
  return swizzled(row * Tile::kRowBytes + piece * 16, Tile::kRowBytes);
}

// Copies the tile's kRows rows of one operand. A thread copies the same piece of every kRowStep-th
// row. kRowStep is a multiple of eight, the period of the swizzle, so one offset serves them all.
template <typename Tile, uint32_t kRows>
class OperandCopier {
 public:
  LOWBIT_DEVICE OperandCopier(const uint16_t* operand, int64_t stride, uint32_t first_row,
                              uint32_t rows, uint32_t k)
      : row_step_(kRowStep * stride), rows_(rows), k_(k) {
    const uint32_t row = thread_index() / kPieces, piece = thread_index() % kPieces;
    row_ = first_row + row;
    column_ = piece * 8;
    source_ = operand + row_ * stride;
    offset_ = piece_offset<Tile>(row, piece);
  }

  // Columns k_block * kTileK on. Outside the operand nothing is read and zeros are written, which
  // add nothing to any sum; k is a multiple of 8, so a piece lies inside or outside as a whole.
  LOWBIT_DEVICE void copy(uint8_t* stage, uint32_t k_block) const {
    const uint32_t column = k_block * Tile::kTileK + column_;
    const uint16_t* source = source_ + column;
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < kRows / kRowStep; ++i) {
      const bool inside = row_ + i * kRowStep < rows_ && column < k_;
      copy_async_16(stage + offset_ + i * kRowStep * Tile::kRowBytes, source + i * row_step_,
                    inside ? 16 : 0);
    }
  }

 private:
  static constexpr uint32_t kPieces = Tile::kRowBytes / 16;
  static constexpr uint32_t kRowStep = Tile::kThreads / kPieces;
  static_assert(kRowStep % 8 == 0 && kRows % kRowStep == 0);

  const uint16_t* source_;
  int64_t row_step_;
  uint32_t row_, rows_, column_, k_, offset_;
};

// A warp's part of the tile: kFragmentsM x kFragmentsN products of 16x8.
template <typename Tile>
struct WarpTile {
  static constexpr uint32_t kFragmentsM = Tile::kWarpM / 16, kFragmentsN = Tile::kWarpN / 8;

  float sums[kFragmentsM][kFragmentsN][4] = {};

  // `a` and `b`: the warp's first row of the stage.
  LOWBIT_DEVICE void multiply(const uint8_t* a, const uint8_t* b) {
    LOWBIT_UNROLL
    for (uint32_t piece = 0; piece < Tile::kTileK / 8; piece += 2) {  // 16 columns are two pieces
      uint32_t rows[kFragmentsM][4], columns[kFragmentsN][2];
      load_rows(a, piece, rows);
      load_columns(b, piece, columns);
      LOWBIT_UNROLL
      for (uint32_t i = 0; i < kFragmentsM; ++i) {
        LOWBIT_UNROLL
        for (uint32_t j = 0; j < kFragmentsN; ++j) mma_float16(sums[i][j], rows[i], columns[j]);
      }
    }
  }

  // Words of a fragment of A: rows 0-7 and 8-15 of the first piece, then of the second.
  LOWBIT_DEVICE void load_rows(const uint8_t* a, uint32_t piece, uint32_t (&out)[kFragmentsM][4]) {
    const uint32_t lane = lane_index();
    const uint8_t* first = a + piece_offset<Tile>(lane % 16, piece + lane / 16);
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < kFragmentsM; ++i) {
      load_matrix_x4(out[i], first + i * 16 * Tile::kRowBytes);
    }
  }

  // Words of a fragment of B: its eight rows of the first piece, then of the second. A row of B is
  // a column of the product. One ldmatrix loads two fragments.
  LOWBIT_DEVICE void load_columns(const uint8_t* b, uint32_t piece,
                                  uint32_t (&out)[kFragmentsN][2]) {
    const uint32_t lane = lane_index();
    const uint32_t row = lane % 8 + lane / 16 * 8;
    const uint8_t* first = b + piece_offset<Tile>(row, piece + lane / 8 % 2);
    LOWBIT_UNROLL
    for (uint32_t j = 0; j < kFragmentsN; j += 2) {
      uint32_t words[4];
      load_matrix_x4(words, first + j * 8 * Tile::kRowBytes);
      out[j][0] = words[0], out[j][1] = words[1];
      out[j + 1][0] = words[2], out[j + 1][1] = words[3];
    }
  }

  // Lane 4r + c holds columns 2c and 2c + 1 of rows r and r + 8 of every product.
  LOWBIT_DEVICE void store(const TiledGemmParams& p, bool paired_stores, uint32_t first_row,
                           uint32_t first_column) const {
    const uint32_t row = first_row + lane_index() / 4;
    const uint32_t column = first_column + lane_index() % 4 * 2;
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < kFragmentsM; ++i) {
      LOWBIT_UNROLL
      for (uint32_t j = 0; j < kFragmentsN; ++j) {
        const float (&d)[4] = sums[i][j];
        store_pair(p, paired_stores, row + i * 16, column + j * 8, d[0], d[1]);
        store_pair(p, paired_stores, row + i * 16 + 8, column + j * 8, d[2], d[3]);
      }
    }
  }
};

template <typename Tile>
LOWBIT_KERNEL(Tile::kThreads)
tiled_gemm_kernel(const TiledGemmParams p, const TiledGemmConfig c) {
  SharedMemoryCutter shared;
  auto* ring_a = shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesA, 128);
  auto* ring_b = shared.take<uint8_t>(Tile::kStages * Tile::kStageBytesB, 128);

  const TileIndex tile = tile_of_block(block_index(), c.tiles_m, c.tiles_n);
  const uint32_t tile_row = tile.m * Tile::kTileM, tile_column = tile.n * Tile::kTileN;
  const OperandCopier<Tile, Tile::kTileM> copier_a(p.a, p.a_stride, tile_row, p.m, p.k);
  const OperandCopier<Tile, Tile::kTileN> copier_b(p.b, p.b_stride, tile_column, p.n, p.k);
  // One group for every step of K, an empty one behind the last: so the number of groups behind a
  // step's is always the same, and the wait below can name it.
  const auto copy_step = [&](uint32_t k_block) {
    if (k_block < c.k_blocks) {
      const uint32_t stage = k_block % Tile::kStages;
      copier_a.copy(ring_a + stage * Tile::kStageBytesA, k_block);
      copier_b.copy(ring_b + stage * Tile::kStageBytesB, k_block);
    }
    commit_async_copies();
  };

  const uint32_t warp_row = warp_index() / Tile::kWarpsN * Tile::kWarpM;
  const uint32_t warp_column = warp_index() % Tile::kWarpsN * Tile::kWarpN;
  WarpTile<Tile> part;
  for (uint32_t step = 0; step < Tile::kStages - 1; ++step) copy_step(step);
  for (uint32_t k_block = 0; k_block < c.k_blocks; ++k_block) {
    // This thread's copies for the step have landed,
    wait_async_copies<Tile::kStages - 2>();
    // and behind the barrier those of all threads. Also, all have multiplied the step before, whose
    // stage the next copies overwrite.
    sync_block();
    copy_step(k_block + Tile::kStages - 1);
    const uint32_t stage = k_block % Tile::kStages;
    part.multiply(ring_a + stage * Tile::kStageBytesA + warp_row * Tile::kRowBytes,
                  ring_b + stage * Tile::kStageBytesB + warp_column * Tile::kRowBytes);
  }
  wait_async_copies<0>();  // a thread ends with none in flight, empty groups included
  part.store(p, c.paired_stores, tile_row + warp_row, tile_column + warp_column);
}

}  // namespace lowbit::cuda::examples
