// int8x2 products in tiles: the two planes of a row of x are two tile rows.

#include "linear_int8x2.inl"
#include "linear_tiles.inl"

inline void pack_rows_int8x2_tiles(const LinearPass& pass, int64_t begin, int64_t end) {
  constexpr int64_t kRows = kTileRows / Int8Tiles::kPlanes;
  const int64_t width = pass.chunks.width;
  alignas(64) uint8_t packed[2 * kMaxChunkColumns];
  for_each_x(pass, begin, end, [&](int64_t c, int64_t row, const float* x) {
    pack_chunk_int8x2(pass, c, row, x, packed);
    uint8_t* tiles = x_row(pass, c, row / kRows * kRows);
    store_tile_row(packed, width, pass.chunks.tile, row % kRows * 2, tiles);
    store_tile_row(packed + width, width, pass.chunks.tile, row % kRows * 2 + 1, tiles);
  });
}

// What the tiles of a chunk are added to.
struct Int8Outputs {
  Int8Chunk chunk;
  Int8Rows rows;
  float* sums;

  LOWBIT_INLINE void add(TilePlace tile, const int32_t* stored) const {
    const Int8Columns columns = int8_columns(chunk, tile.v);
    const int64_t first = tile.row / 2, count = tile.rows / 2;
    const Int8Sides x{rows.sides.sum + first, rows.sides.scale + first, rows.sides.total + first};
    float* sum = sums + first * kPanelRows + tile.v * kLanes;
    for (int64_t r = 0; r < count; ++r, stored += 2 * kLanes, sum += kPanelRows) {
      add_products(columns, x, r, load_i32(stored), load_i32(stored + kLanes), sum);
    }
  }
};

inline void multiply_int8x2_tiles(const LinearPass& pass, TaskQueue& queue) {
  const int64_t tile = pass.chunks.tile;
  configure_tiles_for<Int8Tiles>(pass);
  PendingTiles<int32_t, Int8Outputs> pending;
  const auto multiply = [&](const Int8Chunk& chunk, const Int8Rows& rows, int64_t count,
                            float* sums, auto& slices) {
    const TileOperands operands{chunk.codes, reinterpret_cast<const uint8_t*>(rows.x),
                                rows.width * kTileRows, chunk.columns / 4, tile / 4};
    multiply_tiles<Int8Tiles>(operands, count * 2, Int8Outputs{chunk, rows, sums}, slices, pending);
  };
  int8x2_tasks(pass, queue, tile, multiply, [&] { pending.rest(); });
  release_tiles();
}
