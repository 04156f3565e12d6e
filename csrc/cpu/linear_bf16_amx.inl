// bfloat16 products in tiles. Every M takes them, because they add in an order of their own.

#include "linear_bf16.inl"
#include "linear_tiles.inl"

inline void pack_rows_bf16_tiles(const LinearPass& pass, int64_t begin, int64_t end) {
  alignas(64) uint16_t packed[kMaxChunkColumns];
  for_each_x(pass, begin, end, [&](int64_t c, int64_t row, const float* x) {
    pack_chunk_bf16(pass, c, row, x, packed);
    store_tile_row(reinterpret_cast<const uint8_t*>(packed), pass.row_bytes, 2 * pass.chunks.tile,
                   row % kTileRows, x_row(pass, c, row / kTileRows * kTileRows));
  });
}

// What the tiles of a chunk are added to.
struct Bf16Outputs {
  Bf16Chunk chunk;
  Bf16Rows rows;
  float* sums;

  LOWBIT_INLINE void add(TilePlace tile, const float* stored) const {
    const Bf16Columns columns = bf16_columns(chunk, tile.v);
    const float* x_total = rows.total + tile.row;
    float* sum = sums + tile.row * kPanelRows + tile.v * kLanes;
    for (int64_t r = 0; r < tile.rows; ++r, stored += kLanes, sum += kPanelRows) {
      add_bf16_products(columns, x_total + r, load(stored), sum);
    }
  }
};

inline void multiply_bf16_tiles(const LinearPass& pass, TaskQueue& queue) {
  const int64_t tile = pass.chunks.tile;
  configure_tiles_for<Bf16Tiles>(pass);
  PendingTiles<float, Bf16Outputs> pending;
  const auto multiply = [&](const Bf16Chunk& chunk, const Bf16Rows& rows, int64_t count,
                            float* sums, auto& slices) {
    const TileOperands operands{chunk.panel, reinterpret_cast<const uint8_t*>(rows.x),
                                2 * rows.width * kTileRows, chunk.columns / 2, tile / 2};
    multiply_tiles<Bf16Tiles>(operands, count, Bf16Outputs{chunk, rows, sums}, slices, pending);
  };
  bf16_tasks(pass, queue, tile, multiply, [&] { pending.rest(); });
  release_tiles();
}
