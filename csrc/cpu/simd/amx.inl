// Tiles of 16 rows by 64 bytes. The compiler knows nothing of tile registers; every statement is
// volatile and touches memory as far as it can tell, so that they keep their order among themselves
// and among the loads and stores around them.

inline constexpr int64_t kTileNumbers = 16 * 16;  // of a tile of sums

// Tiles 0..3 are sums, x_rows rows of 64 bytes. Tiles 4 and 5 are x, x_rows rows of 4 * inner_rows
// bytes. Tiles 6 and 7 are the weight, inner_rows rows of 64 bytes.
LOWBIT_INLINE void configure_tiles(int x_rows, int inner_rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) {
    const bool is_x = tile == 4 || tile == 5;
    config.row_bytes[tile] = static_cast<uint16_t>(is_x ? 4 * inner_rows : 64);
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? x_rows : inner_rows);
  }
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}
LOWBIT_INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
LOWBIT_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile) : "memory");
}
template <int kTile>
LOWBIT_INLINE void tile_load(const void* p, int64_t stride_bytes) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0"
               :
               : "i"(kTile), "r"(p), "r"(stride_bytes)
               : "memory");
}
template <int kTile>
LOWBIT_INLINE void tile_store(void* p, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)"
               :
               : "i"(kTile), "r"(p), "r"(stride_bytes)
               : "memory");
}
// sum += x * weight: signed bytes of x, unsigned bytes of the weight.
template <int kSum, int kX, int kWeight>
LOWBIT_INLINE void tile_dot_int8() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kSum), "i"(kX), "i"(kWeight)
               : "memory");
}
template <int kSum, int kX, int kWeight>
LOWBIT_INLINE void tile_dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kSum), "i"(kX), "i"(kWeight)
               : "memory");
}
