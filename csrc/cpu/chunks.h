// The cut of a weight's columns into chunks that lie in one scale group each.
#pragma once

#include <algorithm>

#include "../weight_format.h"

namespace lowbit::cpu {

inline constexpr int64_t kMaxChunkColumns = 128;

constexpr int64_t round_up(int64_t value, int64_t to) { return ceil_div(value, to) * to; }

// How K is cut into chunks: a group of block_k columns is cut every `columns` columns.
struct Chunks {
  int64_t columns;
  int64_t width;  // columns rounded up to whole tiles: what x and a decoded panel store
  int64_t tile;   // columns of one tile
  int64_t per_group;
  int64_t count;
};

inline Chunks cut_columns(const WeightFormat& f, int64_t max_columns, int64_t tile_columns) {
  const int64_t group = std::min(f.block_k, f.k);
  Chunks chunks{};
  chunks.columns = std::min(max_columns, group);
  chunks.tile = std::min(tile_columns, round_up(chunks.columns, 16));
  chunks.width = round_up(chunks.columns, chunks.tile);
  chunks.per_group = ceil_div(group, chunks.columns);
  const int64_t before = scale_columns(f) - 1;
  const int64_t last = f.k - before * f.block_k;
  chunks.count = before * chunks.per_group + ceil_div(last, chunks.columns);
  return chunks;
}

}  // namespace lowbit::cpu
