// The level of the instruction set that check programs compile texts of products for: plain loops
// everywhere, so that every machine judges the same and AddressSanitizer sees every access. Its
// register tiles have several rows and vectors, as those of AVX-512 have: the texts go through all
// of their tails. bfloat16 dot products and tiles, which scalar.inl has none of, are written here.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "check_program.h"
#include "cpu/linear.h"
#include "cpu/simd.h"

// Loops that stay loops take less time to compile.
#undef LOWBIT_UNROLL
#define LOWBIT_UNROLL
#undef LOWBIT_INLINE
#define LOWBIT_INLINE inline

namespace lowbit::cpu::plain {

using namespace scalar;

// These hide what scalar.inl has.
inline constexpr int kRegisters = 32;
inline constexpr int kDotRows = 2;
inline constexpr int kDotVectors = 2;

// ---- bfloat16 ----

inline F32 dot_bf16(F32 sum, I32 a, I32 b) {
  return each_lane([&](int i) {
    const auto low = [](uint32_t v) { return bfloat16_to_float(static_cast<uint16_t>(v)); };
    const auto high = [](uint32_t v) { return bfloat16_to_float(static_cast<uint16_t>(v >> 16)); };
    return sum.lane[i] + high(a.lane[i]) * high(b.lane[i]) + low(a.lane[i]) * low(b.lane[i]);
  });
}

inline F32 store_pairs(uint16_t* p, F32 a) {
  constexpr int kOrder[] = {0, 2, 1, 3};
  for (int i = 0; i < kLanes; ++i) p[i / 4 * 4 + kOrder[i % 4]] = float_to_bfloat16(a.lane[i]);
  return each_lane([&](int i) { return bfloat16_to_float(float_to_bfloat16(a.lane[i])); });
}

struct WordTable {
  uint16_t entries[32];
};
inline WordTable load_word_table(const uint16_t* p) {
  WordTable table;
  std::memcpy(table.entries, p, sizeof table.entries);
  return table;
}
inline I32 lookup_words(WordTable table, I32 words) {
  return each_lane<I32>([&](int i) {
    const uint32_t low = table.entries[words.lane[i] % 32];
    return low | static_cast<uint32_t>(table.entries[(words.lane[i] >> 16) % 32]) << 16;
  });
}
inline I32 words_to_bf16(I32 words) {
  const auto convert = [](uint32_t word) -> uint32_t {
    return float_to_bfloat16(static_cast<float>(static_cast<int16_t>(word)));
  };
  return each_lane<I32>(
      [&](int i) { return convert(words.lane[i] & 0xffff) | convert(words.lane[i] >> 16) << 16; });
}

// ---- tiles ----

inline constexpr int64_t kTileNumbers = 16 * 16;

// Without a shape until tiles are configured; to use it then is a fault.
struct Tile {
  int rows = 0, row_bytes = 0;
  uint8_t bytes[16][64] = {};

  template <typename Number>
  Number at(int row, int64_t column) const {
    Number number;
    std::memcpy(&number, bytes[row] + column * int64_t{sizeof number}, sizeof number);
    return number;
  }
};
inline Tile tiles[8];

inline Tile& shaped_tile(int number) {
  Tile& tile = tiles[number];
  if (tile.rows == 0) check_program::wrong_value("tile %d is not configured", number);
  return tile;
}

inline void configure_tiles(int x_rows, int inner_rows) {
  if (x_rows < 1 || x_rows > 16 || inner_rows < 1 || inner_rows > 16) {
    check_program::wrong_value("tiles of %d and %d rows", x_rows, inner_rows);
  }
  for (int i = 0; i < 8; ++i) {
    tiles[i] = {.rows = i < 6 ? x_rows : inner_rows,
                .row_bytes = i == 4 || i == 5 ? 4 * inner_rows : 64};
  }
}
inline void release_tiles() {
  for (Tile& tile : tiles) tile = {};
}

template <int kTile>
void tile_zero() {
  std::memset(shaped_tile(kTile).bytes, 0, sizeof tiles[kTile].bytes);
}
template <int kTile>
void tile_load(const void* p, int64_t stride_bytes) {
  tile_zero<kTile>();
  for (int row = 0; row < tiles[kTile].rows; ++row) {
    const auto* source = static_cast<const uint8_t*>(p) + row * stride_bytes;
    std::memcpy(tiles[kTile].bytes[row], source, static_cast<size_t>(tiles[kTile].row_bytes));
  }
}
template <int kTile>
void tile_store(void* p, int64_t stride_bytes) {
  const Tile& tile = shaped_tile(kTile);
  for (int row = 0; row < tile.rows; ++row) {
    auto* target = static_cast<uint8_t*>(p) + row * stride_bytes;
    std::memcpy(target, tile.bytes[row], static_cast<size_t>(tile.row_bytes));
  }
}

// sum[row][column] += sum over i of x[row][i] * weight[i / kStep][kStep * column + i % kStep].
template <typename Sum, typename X, typename Weight, typename Value>
void tile_dot(Tile& sum, const Tile& x, const Tile& weight, const Value& value) {
  constexpr int kStep = 4 / sizeof(X);
  for (int row = 0; row < sum.rows; ++row) {
    for (int column = 0; column < 16; ++column) {
      Sum total = sum.at<Sum>(row, column);
      for (int i = 0; i < kStep * weight.rows; ++i) {
        const auto product = value(x.at<X>(row, i)) *
                             value(weight.at<Weight>(i / kStep, kStep * column + i % kStep));
        total += product;
      }
      std::memcpy(sum.bytes[row] + column * 4, &total, 4);
    }
  }
}
template <int kSum, int kX, int kWeight>
void tile_dot_int8() {
  tile_dot<int32_t, int8_t, uint8_t>(shaped_tile(kSum), shaped_tile(kX), shaped_tile(kWeight),
                                     [](int value) { return value; });
}
template <int kSum, int kX, int kWeight>
void tile_dot_bf16() {
  tile_dot<float, uint16_t, uint16_t>(shaped_tile(kSum), shaped_tile(kX), shaped_tile(kWeight),
                                      bfloat16_to_float);
}

}  // namespace lowbit::cpu::plain
