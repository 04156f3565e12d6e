// x in tiles, for the AMX kernels: 16 rows of a chunk are [piece][row][64 bytes], a piece being the
// bytes that one tile takes of a packed row. So a tile lies in one piece of memory.

// Cuts the packed row of a chunk into the tiles of its 16 rows, `piece` bytes each.
inline void store_row_in_tiles(const LinearPass& pass, int64_t chunk, int64_t row, int64_t piece,
                               const uint8_t* packed) {
  uint8_t* tiles = x_row(pass, chunk, row - row % kTileRows) + row % kTileRows * piece;
  for (int64_t i = 0; i < pass.row_bytes; i += piece) {
    std::memcpy(tiles + i * kTileRows, packed + i, static_cast<size_t>(piece));
  }
}

// Rows of x that a tile needs: all 16, unless the pass is smaller than one tile.
LOWBIT_INLINE int tile_rows(const LinearPass& pass) {
  return static_cast<int>(at_most(kTileRows, pass.rows));
}
