// int8x2 products in tiles of 16 rows of x by 16 rows of the weight.

#include "linear_int8x2.inl"
#include "linear_tiles.inl"

inline void pack_rows_int8x2_tiles(const LinearPass& pass, int64_t begin, int64_t end) {
  const WeightFormat& f = pass.params->weight.format;
  alignas(64) float x[kMaxChunkColumns];
  alignas(64) uint8_t packed[2 * kMaxChunkColumns];
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      load_x(pass, row, chunk_at(pass.chunks, f, c), x);
      pack_chunk_int8x2(pass, c, row, x, packed);
      store_row_in_tiles(pass, c, row, pass.chunks.step, packed);
    }
  }
}

// Sums of 16 rows of x with 32 rows of the weight, from vector v on. The `first` rows fetch half of
// the next codes for each half of the panel. Tiles 0 and 1: sums of the high planes, 2 and 3: of
// the low ones; 4 and 5: x; 6 and 7: codes.
LOWBIT_INLINE void sum_int8_tiles(const Int8Chunk& chunk, const int8_t* x, int64_t width,
                                  int64_t step, int v, bool first, int32_t* out) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t k = 0; k < chunk.columns; k += step) {
    const uint8_t* codes = chunk.codes + k / 4 * kQuadBytes + v * 64;
    if (first) chunk.next.fetch(k / 2 + v * chunk.columns / 4, step / 2);
    tile_load<6>(codes, kQuadBytes);
    tile_load<4>(x + k * kTileRows, step);
    tile_dot_int8<0, 4, 6>();
    tile_load<7>(codes + 64, kQuadBytes);
    tile_dot_int8<1, 4, 7>();
    tile_load<5>(x + (width + k) * kTileRows, step);
    tile_dot_int8<2, 5, 6>();
    tile_dot_int8<3, 5, 7>();
  }
  tile_store<0>(out, 64);
  tile_store<1>(out + kTileNumbers, 64);
  tile_store<2>(out + 2 * kTileNumbers, 64);
  tile_store<3>(out + 3 * kTileNumbers, 64);
}

inline void multiply_int8_tiles(const Int8Chunk& chunk, const Int8Rows& rows, int64_t count,
                                int64_t step, float* sums) {
  alignas(64) int32_t tiles[4][kTileRows][kLanes];
  for (int64_t row = 0; row < count; row += kTileRows) {
    const int8_t* x = rows.x + row * 2 * rows.width;
    const int64_t here = at_most(kTileRows, count - row);
    for (int v = 0; v < kVectors; v += 2) {
      sum_int8_tiles(chunk, x, rows.width, step, v, row == 0, tiles[0][0]);
      for (int64_t r = 0; r < here; ++r) {
        for (int i = 0; i < 2; ++i) {
          add_products(chunk, rows, row + r, v + i, load_i32(tiles[i][r]),
                       load_i32(tiles[2 + i][r]), sums);
        }
      }
    }
  }
}

inline void multiply_int8x2_tiles(const LinearPass& pass, int64_t begin, int64_t end) {
  const int64_t step = pass.chunks.step;
  configure_tiles(tile_rows(pass), static_cast<int>(step / 4));
  int8x2_tasks(pass, begin, end, step,
               [=](const Int8Chunk& chunk, const Int8Rows& rows, int64_t count, float* sums) {
                 multiply_int8_tiles(chunk, rows, count, step, sums);
               });
  release_tiles();
}
