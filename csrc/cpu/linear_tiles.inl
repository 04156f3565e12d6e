// Products in tiles for the AMX kernels: 16 tile rows of x by 16 rows of the weight.
//
// A tile row of x is a row in bfloat16, or one of the two int8 planes of a row. 16 tile rows of a
// chunk are [piece][tile row][64 bytes], a piece being the bytes that one tile takes of a row: so a
// tile lies in one piece of memory. A panel of the weight is [inner row][64 rows][4 bytes]; inner
// rows are what a tile sums over, 2 columns in bfloat16 and 4 in int8.

inline constexpr int64_t kInnerBytes = kPanelRows * 4;

struct Int8Tiles {
  using Number = int32_t;
  static constexpr int kColumns = 4;  // of an inner row
  static constexpr int kPlanes = 2;   // of a row of x
  template <int kSum, int kX, int kWeight>
  LOWBIT_INLINE static void dot() {
    tile_dot_int8<kSum, kX, kWeight>();
  }
};

struct Bf16Tiles {
  using Number = float;
  static constexpr int kColumns = 2;
  static constexpr int kPlanes = 1;  // of a row of x
  template <int kSum, int kX, int kWeight>
  LOWBIT_INLINE static void dot() {
    tile_dot_bf16<kSum, kX, kWeight>();
  }
};

// ---- x ----

// Stores `bytes` bytes of a tile row at its place among the 16 that begin at `tiles`.
LOWBIT_INLINE void store_tile_row(const uint8_t* packed, int64_t bytes, int64_t piece, int64_t row,
                                  uint8_t* tiles) {
  for (int64_t i = 0; i < bytes; i += piece) {
    std::memcpy(tiles + i * kTileRows + row * piece, packed + i, static_cast<size_t>(piece));
  }
}

// ---- products ----

template <typename Tiles>
inline void configure_tiles_for(const LinearPass& pass) {
  const int64_t rows = at_most(kTileRows, pass.rows * Tiles::kPlanes);
  configure_tiles(static_cast<int>(rows), static_cast<int>(pass.chunks.tile / Tiles::kColumns));
}

// A chunk of a panel and of x.
struct TileOperands {
  const uint8_t* panel;
  const uint8_t* x;
  int64_t x_bytes;     // of 16 tile rows
  int64_t inner_rows;  // of the chunk, whole tiles
  int64_t inner_step;  // of a tile
};

// Where a tile of sums goes: tile rows [row, row + rows), vector v of the outputs.
struct TilePlace {
  int64_t row, rows;
  int v;
};

// The four tiles of sums that were computed last, tiles 0..3. They are added to the outputs in
// between the products of the next ones, those of the next chunk too: what the tile unit stored can
// be loaded only when all stores before it are done. Outputs::add(place, sums) adds one tile.
template <typename Number, typename Outputs>
class PendingTiles {
 public:
  LOWBIT_INLINE bool any() const { return next_ < 4; }
  LOWBIT_INLINE void next() {
    outputs_.add(places_[next_], stored_ + next_ * kTileNumbers);
    ++next_;
  }
  LOWBIT_INLINE void rest() {
    while (any()) next();
  }
  LOWBIT_INLINE void keep(const Outputs& outputs, TilePlace a, TilePlace b, TilePlace c,
                          TilePlace d) {
    rest();
    tile_store<0>(stored_, 64);
    tile_store<1>(stored_ + kTileNumbers, 64);
    tile_store<2>(stored_ + 2 * kTileNumbers, 64);
    tile_store<3>(stored_ + 3 * kTileNumbers, 64);
    outputs_ = outputs;
    places_[0] = a;
    places_[1] = b;
    places_[2] = c;
    places_[3] = d;
    next_ = 0;
  }

 private:
  alignas(64) Number stored_[4 * kTileNumbers];
  TilePlace places_[4];
  int next_ = 4;
  Outputs outputs_{};
};

LOWBIT_INLINE void zero_sum_tiles() {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
}

// 16 tile rows of x: sums of all 64 rows of the weight. Tiles 4 and 5 are x, 6 and 7 the weight.
// between(inner rows that are done) runs while the tile unit works.
template <typename Tiles, typename Between>
LOWBIT_INLINE void sum_row_of_tiles(const TileOperands& o, const uint8_t* x,
                                    const Between& between) {
  zero_sum_tiles();
  for (int64_t i = 0; i < o.inner_rows; i += o.inner_step) {
    const uint8_t* w = o.panel + i * kInnerBytes;
    tile_load<4>(x + i * 4 * kTileRows, 4 * o.inner_step);
    tile_load<6>(w, kInnerBytes);
    Tiles::template dot<0, 4, 6>();
    between(i);
    tile_load<7>(w + 64, kInnerBytes);
    Tiles::template dot<1, 4, 7>();
    between(i);
    tile_load<6>(w + 128, kInnerBytes);
    Tiles::template dot<2, 4, 6>();
    between(i);
    tile_load<7>(w + 192, kInnerBytes);
    Tiles::template dot<3, 4, 7>();
    between(i);
  }
}

// 32 tile rows of x, 32 rows of the weight from vector v on: half the loads a product.
template <typename Tiles, typename Between>
LOWBIT_INLINE void sum_square_of_tiles(const TileOperands& o, const uint8_t* x, int v,
                                       const Between& between) {
  zero_sum_tiles();
  for (int64_t i = 0; i < o.inner_rows; i += o.inner_step) {
    const uint8_t* w = o.panel + i * kInnerBytes + v * 64;
    const uint8_t* above = x + i * 4 * kTileRows;
    tile_load<6>(w, kInnerBytes);
    tile_load<4>(above, 4 * o.inner_step);
    Tiles::template dot<0, 4, 6>();
    between(i);
    tile_load<7>(w + 64, kInnerBytes);
    Tiles::template dot<1, 4, 7>();
    between(i);
    tile_load<5>(above + o.x_bytes, 4 * o.inner_step);
    Tiles::template dot<2, 5, 6>();
    between(i);
    Tiles::template dot<3, 5, 7>();
    between(i);
  }
}

// All `rows` tile rows of x. The sums of the last ones stay pending. Slices come in between when
// the panel is gone through for the last time.
template <typename Tiles, typename Slices, typename Pending, typename Outputs>
LOWBIT_INLINE void multiply_tiles(const TileOperands& o, int64_t rows, const Outputs& outputs,
                                  Slices& slices, Pending& pending) {
  // One after the other: loads of sums wait for stores of a slice that only look like theirs, being
  // a multiple of 4 KiB away.
  const auto add = [&](int64_t) {
    if (pending.any()) pending.next();
  };
  const auto add_or_decode = [&](int64_t inner_rows) {
    pending.any() ? pending.next() : slices.next(inner_rows * Tiles::kColumns);
  };
  int64_t row = 0;
  const uint8_t* x = o.x;
  for (; row + kTileRows < rows; row += 2 * kTileRows, x += 2 * o.x_bytes) {
    const int64_t below = row + kTileRows;
    const int64_t rest = at_most(kTileRows, rows - below);
    for (int v = 0; v < kVectors; v += 2) {
      const bool last = v + 2 == kVectors && row + 2 * kTileRows >= rows;
      last ? sum_square_of_tiles<Tiles>(o, x, v, add_or_decode)
           : sum_square_of_tiles<Tiles>(o, x, v, add);
      pending.keep(outputs, {row, kTileRows, v}, {row, kTileRows, v + 1}, {below, rest, v},
                   {below, rest, v + 1});
    }
  }
  if (row < rows) {
    const int64_t rest = rows - row;
    sum_row_of_tiles<Tiles>(o, x, add_or_decode);
    pending.keep(outputs, {row, rest, 0}, {row, rest, 1}, {row, rest, 2}, {row, rest, 3});
  }
}
