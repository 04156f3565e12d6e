// bfloat16 products in tiles. Every M takes them, because they add in an order of their own.

#include "linear_bf16.inl"

inline constexpr int64_t kTileNumbers = 256;

// Up to 16 rows of x: four tiles of outputs, 64 rows of the weight.
LOWBIT_INLINE void sum_bf16_row_tile(const Bf16Chunk& chunk, const uint16_t* x, int64_t width,
                                     int64_t step, float* out) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t k = 0; k < chunk.columns; k += step) {
    const uint8_t* w = chunk.panel + k / 2 * kPairBytes;
    tile_load<4>(x + k, 2 * width);
    tile_load<6>(w, kPairBytes);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(w + 64, kPairBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load<6>(w + 128, kPairBytes);
    tile_dot_bf16<2, 4, 6>();
    tile_load<7>(w + 192, kPairBytes);
    tile_dot_bf16<3, 4, 7>();
  }
  tile_store<0>(out, 64);
  tile_store<1>(out + kTileNumbers, 64);
  tile_store<2>(out + 2 * kTileNumbers, 64);
  tile_store<3>(out + 3 * kTileNumbers, 64);
}

// 32 rows of x, two tiles of outputs each: half the loads a product.
LOWBIT_INLINE void sum_bf16_square(const Bf16Chunk& chunk, const uint16_t* x, int64_t width,
                                   int64_t step, int v, float* out) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t k = 0; k < chunk.columns; k += step) {
    const uint8_t* w = chunk.panel + k / 2 * kPairBytes + v * 64;
    tile_load<6>(w, kPairBytes);
    tile_load<4>(x + k, 2 * width);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(w + 64, kPairBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load<5>(x + kTileRows * width + k, 2 * width);
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
  }
  tile_store<0>(out, 64);
  tile_store<1>(out + kTileNumbers, 64);
  tile_store<2>(out + 2 * kTileNumbers, 64);
  tile_store<3>(out + 3 * kTileNumbers, 64);
}

// Adds `rows` rows of one tile to vector v of the sums.
LOWBIT_INLINE void add_bf16_tile(const Bf16Chunk& chunk, const Bf16Rows& x, int64_t row,
                                 int64_t rows, int v, const float* tile, float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    add_bf16_products(chunk, x, row + r, v, load(tile + r * kLanes), sums);
  }
}

inline void multiply_bf16_tiles(const Bf16Chunk& chunk, const Bf16Rows& x, int64_t count,
                                int64_t step, float* sums) {
  alignas(64) float tiles[4 * kTileNumbers];
  int64_t row = 0;
  for (; row + kTileRows < count; row += 2 * kTileRows) {
    const int64_t second = at_most(kTileRows, count - row - kTileRows);
    for (int v = 0; v < kVectors; v += 2) {
      sum_bf16_square(chunk, x.x + row * x.width, x.width, step, v, tiles);
      for (int i = 0; i < 2; ++i) {
        add_bf16_tile(chunk, x, row, kTileRows, v + i, tiles + i * kTileNumbers, sums);
        add_bf16_tile(chunk, x, row + kTileRows, second, v + i, tiles + (2 + i) * kTileNumbers,
                      sums);
      }
    }
  }
  if (row >= count) return;
  sum_bf16_row_tile(chunk, x.x + row * x.width, x.width, step, tiles);
  for (int v = 0; v < kVectors; ++v) {
    add_bf16_tile(chunk, x, row, count - row, v, tiles + v * kTileNumbers, sums);
  }
}

inline void multiply_bf16_amx(const LinearPass& pass, int64_t begin, int64_t end) {
  const int64_t step = pass.chunks.step;
  configure_tiles(static_cast<int>(step / 2));
  bf16_tasks(pass, begin, end, step,
             [=](const Bf16Chunk& chunk, const Bf16Rows& x, int64_t count, float* sums) {
               multiply_bf16_tiles(chunk, x, count, step, sums);
             });
  release_tiles();
}
