// Kernel texts of the probes of tiles: products of whole tiles of zeros, four sums in turn.

template <void (*kProducts)()>
inline float tile_rounds(int64_t rounds, float factor) {
  alignas(64) float tile[kTileNumbers];
  for (float& value : tile) value = 0.0f * factor;
  configure_tiles(16, 16);
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  tile_load<4>(tile, 64);
  tile_load<5>(tile, 64);
  tile_load<6>(tile, 64);
  tile_load<7>(tile, 64);
  for (int64_t i = 0; i < rounds; ++i) kProducts();
  tile_store<0>(tile, 64);
  release_tiles();
  return tile[0];
}

LOWBIT_INLINE void int8_products() {
  tile_dot_int8<0, 4, 6>();
  tile_dot_int8<1, 4, 7>();
  tile_dot_int8<2, 5, 6>();
  tile_dot_int8<3, 5, 7>();
}
LOWBIT_INLINE void bf16_products() {
  tile_dot_bf16<0, 4, 6>();
  tile_dot_bf16<1, 4, 7>();
  tile_dot_bf16<2, 5, 6>();
  tile_dot_bf16<3, 5, 7>();
}
inline constexpr PeakLoop kTileInt8{4 * 2 * 64 * kTileNumbers, tile_rounds<int8_products>};
inline constexpr PeakLoop kTileBf16{4 * 2 * 32 * kTileNumbers, tile_rounds<bf16_products>};
