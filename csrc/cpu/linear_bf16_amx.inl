// bfloat16 products in tiles. Every M takes them, because they add in an order of their own.

#include "linear_bf16.inl"
#include "linear_tiles.inl"

inline void pack_rows_bf16_tiles(const LinearPass& pass, int64_t begin, int64_t end) {
  const WeightFormat& f = pass.params->weight.format;
  alignas(64) float x[kMaxChunkColumns];
  alignas(64) uint16_t packed[kMaxChunkColumns];
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t c = 0; c < pass.chunks.count; ++c) {
      load_x(pass, row, chunk_at(pass.chunks, f, c), x);
      pack_chunk_bf16(pass, c, row, x, packed);
      store_row_in_tiles(pass, c, row, 2 * pass.chunks.step,
                         reinterpret_cast<const uint8_t*>(packed));
    }
  }
}

// Tiles 0..3 are sums, 4 and 5 x, 6 and 7 the weight.
LOWBIT_INLINE void zero_sum_tiles() {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
}

LOWBIT_INLINE void store_sum_tiles(float* out) {
  tile_store<0>(out, 64);
  tile_store<1>(out + kTileNumbers, 64);
  tile_store<2>(out + 2 * kTileNumbers, 64);
  tile_store<3>(out + 3 * kTileNumbers, 64);
}

// Where a tile of stored sums goes.
struct StoredTile {
  int64_t row, rows;
  int v;
};

// The four tiles of sums that were computed last. They are added to the outputs in between the
// products of the next ones, which the tile unit does meanwhile.
class PendingTiles {
 public:
  LOWBIT_INLINE PendingTiles(const Bf16Chunk& chunk, const Bf16Rows& x, float* sums)
      : chunk_(chunk), x_(x), sums_(sums) {}

  LOWBIT_INLINE void add_next() {
    if (next_ < 4) add_tile(tiles_[next_], stored_ + next_ * kTileNumbers);
    ++next_;
  }
  LOWBIT_INLINE void add_rest() {
    while (next_ < 4) add_next();
  }
  LOWBIT_INLINE void keep(StoredTile a, StoredTile b, StoredTile c, StoredTile d) {
    store_sum_tiles(stored_);
    tiles_[0] = a;
    tiles_[1] = b;
    tiles_[2] = c;
    tiles_[3] = d;
    next_ = 0;
  }

 private:
  LOWBIT_INLINE void add_tile(const StoredTile& tile, const float* stored) {
    const F32 scale = load(chunk_.scale + tile.v * kLanes);
    float* out = sums_ + tile.row * kPanelRows + tile.v * kLanes;
    if (!chunk_.offset) {
      for (int64_t r = 0; r < tile.rows; ++r, out += kPanelRows) {
        store(out, fma(load(stored + r * kLanes), scale, load(out)));
      }
      return;
    }
    const F32 offset = load(chunk_.offset + tile.v * kLanes);
    for (int64_t r = 0; r < tile.rows; ++r, out += kPanelRows) {
      const F32 sum = fma(load(stored + r * kLanes), scale, load(out));
      store(out, fma(splat(x_.total[tile.row + r]), offset, sum));
    }
  }

  alignas(64) float stored_[4 * kTileNumbers];
  StoredTile tiles_[4];
  int next_ = 4;
  const Bf16Chunk& chunk_;
  const Bf16Rows& x_;
  float* sums_;
};

// 16 rows of x: sums of all 64 rows of the weight. The `first` rows fetch the next codes.
LOWBIT_INLINE void sum_row_of_tiles(const Bf16Chunk& chunk, const uint16_t* x, int64_t step,
                                    bool first, PendingTiles& pending) {
  zero_sum_tiles();
  for (int64_t k = 0; k < chunk.columns; k += step) {
    const uint8_t* w = chunk.panel + k / 2 * kPairBytes;
    if (first) chunk.next.fetch(k, step);
    tile_load<4>(x + k * kTileRows, 2 * step);
    tile_load<6>(w, kPairBytes);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(w + 64, kPairBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load<6>(w + 128, kPairBytes);
    tile_dot_bf16<2, 4, 6>();
    tile_load<7>(w + 192, kPairBytes);
    tile_dot_bf16<3, 4, 7>();
    pending.add_next();
  }
  pending.add_rest();
}

// 32 rows of x, 32 rows of the weight from vector v on: half the loads a product.
LOWBIT_INLINE void sum_square_of_tiles(const Bf16Chunk& chunk, const uint16_t* x, int64_t width,
                                       int64_t step, int v, bool first, PendingTiles& pending) {
  zero_sum_tiles();
  for (int64_t k = 0; k < chunk.columns; k += step) {
    const uint8_t* w = chunk.panel + k / 2 * kPairBytes + v * 64;
    if (first) chunk.next.fetch(k, step);
    tile_load<6>(w, kPairBytes);
    tile_load<4>(x + k * kTileRows, 2 * step);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(w + 64, kPairBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load<5>(x + (width + k) * kTileRows, 2 * step);
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
    prefetch_tiles(x + (2 * width + k) * kTileRows, 2 * step);
    prefetch_tiles(x + (3 * width + k) * kTileRows, 2 * step);
    pending.add_next();
  }
  pending.add_rest();
}

inline void multiply_bf16_tiles(const Bf16Chunk& chunk, const Bf16Rows& x, int64_t count,
                                int64_t step, float* sums) {
  PendingTiles pending(chunk, x, sums);
  int64_t row = 0;
  for (; row + kTileRows < count; row += 2 * kTileRows) {
    const int64_t below = row + kTileRows;
    const int64_t rest = at_most(kTileRows, count - below);
    for (int v = 0; v < kVectors; v += 2) {
      sum_square_of_tiles(chunk, x.x + row * x.width, x.width, step, v, row + v == 0, pending);
      pending.keep({row, kTileRows, v}, {row, kTileRows, v + 1}, {below, rest, v},
                   {below, rest, v + 1});
    }
  }
  if (row < count) {
    const int64_t rest = count - row;
    sum_row_of_tiles(chunk, x.x + row * x.width, step, row == 0, pending);
    pending.keep({row, rest, 0}, {row, rest, 1}, {row, rest, 2}, {row, rest, 3});
  }
  pending.add_rest();
}

inline void multiply_bf16_amx(const LinearPass& pass, int64_t begin, int64_t end) {
  const int64_t step = pass.chunks.step;
  configure_tiles(tile_rows(pass), static_cast<int>(step / 2));
  bf16_tasks(pass, begin, end, step,
             [=](const Bf16Chunk& chunk, const Bf16Rows& x, int64_t count, float* sums) {
               multiply_bf16_tiles(chunk, x, count, step, sums);
             });
  release_tiles();
}
