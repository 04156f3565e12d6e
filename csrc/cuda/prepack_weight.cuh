// Kernels of prepack_weight and unpack_weight between canonical rows and fragments: one thread
// makes 32 columns of four rows. Bound by memory: bits/8 bytes are read and as many written for
// each code.
#pragma once

#include "../index_bits.h"
#include "../prepack_weight.h"
#include "config.h"
#include "device.cuh"

namespace lowbit::cuda {

// ---- the order of codes in a tile ----

// One plane of a thread's tile as canonical rows hold it.
template <int kWidth>
struct Tile {
  uint32_t rows[kQuadRows][kWidth];
};

// The same as the lanes 4g .. 4g+3 of a unit hold it, each in kWidth words, all side by side.
template <int kWidth>
struct Lanes {
  uint32_t packs[kWidth][4];

  LOWBIT_DEVICE uint32_t& word(int lane, int index) {
    const int at = lane * kWidth + index;
    return packs[at / 4][at % 4];
  }
};

// Word `index` of the four lanes has the same codes as four words of the rows, which words and
// fields exchange bits of their numbers for. With the letters of docs/formats.md, a lane c = 2 c1 +
// c0, a pair i = 2a + b, the numbers are, high bits first:
//
//   width   word and field of lanes   of rows
//   8       c1 c0, e b                c1 b, c0 e
//   4       c1 c0, e a b              a b,  c1 c0 e
//   2       c1 c0, e t a b            t b,  a c1 c0 e
//   1       c1 c0, e s t a b          t b,  s a c1 c0 e
template <int kWidth>
struct Order {
  static constexpr int kSecondBit = kWidth == 4 ? 1 : 2;  // of the field; 8 bits have none

  LOWBIT_DEVICE static void exchange_words(uint32_t (&words)[4]) {
    exchange_fields<kWidth, 0>(words[0], words[1]);
    exchange_fields<kWidth, 0>(words[2], words[3]);
  }

  LOWBIT_DEVICE static void exchange_distant_words(uint32_t (&words)[4]) {
    if constexpr (kWidth < 8) {
      exchange_fields<kWidth, kSecondBit>(words[0], words[2]);
      exchange_fields<kWidth, kSecondBit>(words[1], words[3]);
    }
  }

  LOWBIT_DEVICE static void to_rows(uint32_t (&words)[4]) {
    exchange_words(words);
    exchange_distant_words(words);
    LOWBIT_UNROLL
    for (uint32_t& word : words) {
      if constexpr (kWidth == 1) word = swap_index_bits<kWidth, 4, 3>(word);
      if constexpr (kWidth <= 2) word = swap_index_bits<kWidth, 3, 1>(word);
      if constexpr (kWidth == 4) word = swap_index_bits<kWidth, 2, 1>(word);
      word = swap_index_bits<kWidth, 1, 0>(word);
    }
  }

  // The same steps, each its own inverse, from the last to the first.
  LOWBIT_DEVICE static void to_lanes(uint32_t (&words)[4]) {
    LOWBIT_UNROLL
    for (uint32_t& word : words) {
      word = swap_index_bits<kWidth, 1, 0>(word);
      if constexpr (kWidth == 4) word = swap_index_bits<kWidth, 2, 1>(word);
      if constexpr (kWidth <= 2) word = swap_index_bits<kWidth, 3, 1>(word);
      if constexpr (kWidth == 1) word = swap_index_bits<kWidth, 4, 3>(word);
    }
    exchange_distant_words(words);
    exchange_words(words);
  }

  // Where the tile has the word of that number, of those that word `index` of the lanes becomes.
  LOWBIT_DEVICE static uint32_t& row_word(Tile<kWidth>& tile, int index, int number) {
    if constexpr (kWidth < 4) {
      return tile.rows[number][index];
    } else {
      constexpr int kHalf = kWidth / 4;  // words of a lane for one s and t
      const int s = index / (2 * kHalf), t = index / kHalf % 2;
      return tile.rows[2 * t + number % 2][kWidth / 2 * s + 2 * (index % kHalf) + number / 2];
    }
  }
};

template <int kWidth>
LOWBIT_DEVICE void lanes_to_rows(Lanes<kWidth>& lanes, Tile<kWidth>& tile) {
  LOWBIT_UNROLL
  for (int index = 0; index < kWidth; ++index) {
    uint32_t words[4];
    LOWBIT_UNROLL
    for (int lane = 0; lane < 4; ++lane) words[lane] = lanes.word(lane, index);
    Order<kWidth>::to_rows(words);
    LOWBIT_UNROLL
    for (int i = 0; i < 4; ++i) Order<kWidth>::row_word(tile, index, i) = words[i];
  }
}

template <int kWidth>
LOWBIT_DEVICE void rows_to_lanes(Tile<kWidth>& tile, Lanes<kWidth>& lanes) {
  LOWBIT_UNROLL
  for (int index = 0; index < kWidth; ++index) {
    uint32_t words[4];
    LOWBIT_UNROLL
    for (int i = 0; i < 4; ++i) words[i] = Order<kWidth>::row_word(tile, index, i);
    Order<kWidth>::to_lanes(words);
    LOWBIT_UNROLL
    for (int lane = 0; lane < 4; ++lane) lanes.word(lane, index) = words[lane];
  }
}

// ---- columns from one tile to another ----

// Columns of the tile to be made, and where they stand in the other layout. The first piece of a
// tile is stored with zeros for the others, which are then added in memory: registers for two tiles
// would leave fewer threads that wait for theirs.
struct Piece {
  uint32_t source;  // tile of the panel
  uint32_t from;    // column of the source
  uint32_t to;      // column of the tile
  uint32_t count;
};

LOWBIT_DEVICE uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Moves each column to that kColumns behind it, the last ones to the front, if the number of
// columns to move by has that bit.
template <int kColumns, int kWidth>
LOWBIT_DEVICE void rotate_by(uint32_t columns, Tile<kWidth>& tile) {
  if (columns / kColumns % 2 == 0) return;
  constexpr int kWords = kColumns * kWidth / 32, kShift = kColumns * kWidth % 32;
  const Tile<kWidth> before = tile;
  LOWBIT_UNROLL
  for (int r = 0; r < kQuadRows; ++r) {
    LOWBIT_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t word = before.rows[r][(i + kWidth - kWords) % kWidth];
      const uint32_t below = before.rows[r][(i + 2 * kWidth - kWords - 1) % kWidth];
      if constexpr (kShift == 0) {
        tile.rows[r][i] = word;
      } else {
        tile.rows[r][i] = word << kShift | below >> (32 - kShift);
      }
    }
  }
}

template <int kWidth>
LOWBIT_DEVICE void rotate(uint32_t columns, Tile<kWidth>& tile) {
  rotate_by<1>(columns, tile);
  rotate_by<2>(columns, tile);
  rotate_by<4>(columns, tile);
  rotate_by<8>(columns, tile);
  rotate_by<16>(columns, tile);
}

// The bits of word `index` of a row that belong to columns before `end`.
template <int kWidth>
LOWBIT_DEVICE uint32_t columns_before(uint32_t end, uint32_t index) {
  constexpr uint32_t kColumns = 32 / kWidth;
  const uint32_t first = index * kColumns;
  if (end <= first) return 0;
  if (end >= first + kColumns) return ~0u;
  return (1u << (end - first) * kWidth) - 1;
}

// Of the piece's source makes a tile of the piece's columns at their place and zeros.
template <int kWidth>
LOWBIT_DEVICE void place_columns(const Piece& piece, Tile<kWidth>& tile) {
  if (piece.count == kFragmentUnitColumns) return;  // the source is the tile
  rotate((piece.to - piece.from) % kFragmentUnitColumns, tile);
  LOWBIT_UNROLL
  for (int i = 0; i < kWidth; ++i) {
    const uint32_t mask =
        columns_before<kWidth>(piece.to + piece.count, i) & ~columns_before<kWidth>(piece.to, i);
    LOWBIT_UNROLL
    for (int r = 0; r < kQuadRows; ++r) tile.rows[r][i] &= mask;
  }
}

// ---- memory ----

// What a thread makes.
struct Place {
  uint32_t panel;
  uint32_t quad;  // of the panel
  uint32_t tile;

  LOWBIT_DEVICE int64_t row() const { return panel * kPanelRows + quad * kQuadRows; }
};

LOWBIT_DEVICE Place place_of_thread(const RelayoutConfig& c) {
  const uint32_t panel = c.panel_blocks.divide(block_index());
  const uint32_t block = block_index() - panel * c.panel_blocks.value;
  return {panel, thread_index() / kBlockTiles, block * kBlockTiles + thread_index() % kBlockTiles};
}

// Words from the start of a panel to the quad's lanes in the plane of bit kLow of a unit.
template <int kBits, int kLow>
LOWBIT_DEVICE int64_t lanes_offset(uint32_t unit, uint32_t quad) {
  constexpr uint32_t kQuads = 32 / kQuadRows;  // of a half
  const uint32_t half = unit * 2 + quad / kQuads;
  return static_cast<int64_t>(half) * (32 * kBits) + 32 * kLow +
         quad % kQuads * (4 * plane_width(kBits - kLow));
}

LOWBIT_DEVICE void store_word(uint32_t word, bool first, uint32_t* address) {
  *address = first ? word : *address | word;
}

template <int kWidth>
LOWBIT_DEVICE void load_lanes(const uint32_t* words, bool whole, Lanes<kWidth>& lanes) {
  LOWBIT_UNROLL
  for (int i = 0; i < kWidth; ++i) {
    if (whole) {
      load_16_bytes(lanes.packs[i], words + 4 * i);
    } else {
      LOWBIT_UNROLL
      for (int j = 0; j < 4; ++j) lanes.packs[i][j] = load_constant(words + 4 * i + j);
    }
  }
}

template <int kWidth>
LOWBIT_DEVICE void store_lanes(const Lanes<kWidth>& lanes, bool whole, bool first,
                               uint32_t* words) {
  LOWBIT_UNROLL
  for (int i = 0; i < kWidth; ++i) {
    if (whole && first) {
      store_16_bytes(words + 4 * i, lanes.packs[i]);
    } else {
      LOWBIT_UNROLL
      for (int j = 0; j < 4; ++j) store_word(lanes.packs[i][j], first, words + 4 * i + j);
    }
  }
}

// The words of one plane and row in accesses as wide as they may be; `count`: words of the plane
// from the first on, of which a tile at the end of the row has fewer than kWidth.
template <uint32_t kWidth>
LOWBIT_DEVICE void load_row(const uint32_t* words, uint32_t count, bool whole,
                            uint32_t (&row)[kWidth]) {
  if constexpr (kWidth > 1) {
    constexpr uint32_t kPack = kWidth < 4 ? kWidth : 4;
    if (whole && count >= kWidth) {
      LOWBIT_UNROLL
      for (uint32_t i = 0; i < kWidth; i += kPack) {
        uint32_t pack[kPack];
        if constexpr (kPack == 4) load_16_bytes(pack, words + i);
        if constexpr (kPack == 2) load_8_bytes(pack, words + i);
        LOWBIT_UNROLL
        for (uint32_t j = 0; j < kPack; ++j) row[i + j] = pack[j];
      }
      return;
    }
  }
  LOWBIT_UNROLL
  for (uint32_t i = 0; i < kWidth; ++i) row[i] = i < count ? load_constant(words + i) : 0;
}

template <uint32_t kWidth>
LOWBIT_DEVICE void store_row(const uint32_t (&row)[kWidth], uint32_t count, bool whole, bool first,
                             uint32_t* words) {
  if constexpr (kWidth > 1) {
    constexpr uint32_t kPack = kWidth < 4 ? kWidth : 4;
    if (whole && first && count >= kWidth) {
      LOWBIT_UNROLL
      for (uint32_t i = 0; i < kWidth; i += kPack) {
        uint32_t pack[kPack];
        LOWBIT_UNROLL
        for (uint32_t j = 0; j < kPack; ++j) pack[j] = row[i + j];
        if constexpr (kPack == 4) store_16_bytes(words + i, pack);
        if constexpr (kPack == 2) store_8_bytes(words + i, pack);
      }
      return;
    }
  }
  LOWBIT_UNROLL
  for (uint32_t i = 0; i < kWidth; ++i) {
    if (i < count) store_word(row[i], first, words + i);
  }
}

// ---- from rows to fragments ----

// Those of a unit or of a run. Behind the last one of a panel there are none, and end <= begin.
struct Columns {
  uint32_t begin, end;
};

LOWBIT_DEVICE Columns columns_of_unit(const RelayoutConfig& c, uint32_t unit, uint32_t k) {
  const uint32_t group = c.group_units.divide(unit);
  const uint32_t first = group * c.block_k.value;
  const uint32_t begin = first + (unit - group * c.group_units.value) * kFragmentUnitColumns;
  const uint32_t stop = smaller(first + c.block_k.value, k);
  return {begin, smaller(begin + kFragmentUnitColumns, stop)};
}

// What the canonical words of 32 columns have of the unit, from that column on.
LOWBIT_DEVICE Piece piece_of_run(const Columns& unit, uint32_t column) {
  const uint32_t from = column % kFragmentUnitColumns;
  return {column / kFragmentUnitColumns, from, column - unit.begin,
          smaller(kFragmentUnitColumns - from, unit.end - column)};
}

// The planes from bit kLow on; `rows`: those of the first of them, in the first row of the quad.
template <int kBits, int kLow = 0>
LOWBIT_DEVICE void prepack_planes(const RelayoutParams& p, const RelayoutConfig& c, const Place& at,
                                  const Columns& columns, const uint32_t* rows, uint32_t* panel) {
  constexpr int kWidth = plane_width(kBits - kLow);
  const auto words = static_cast<uint32_t>(plane_words(p.format.k, kWidth));
  uint32_t column = columns.begin;
  while (column < columns.end) {
    const Piece piece = piece_of_run(columns, column);
    const uint32_t word = piece.source * kWidth;
    Tile<kWidth> tile{};
    LOWBIT_UNROLL
    for (int r = 0; r < kQuadRows; ++r) {
      if (at.row() + r >= p.format.n) break;
      load_row(rows + r * p.qweight_stride + word, words - word, c.whole_rows, tile.rows[r]);
    }
    place_columns(piece, tile);
    Lanes<kWidth> lanes;
    rows_to_lanes(tile, lanes);
    store_lanes(lanes, c.whole_lanes, piece.to == 0,
                panel + lanes_offset<kBits, kLow>(at.tile, at.quad));
    column += piece.count;
  }
  if constexpr (kLow + kWidth < kBits) {
    prepack_planes<kBits, kLow + kWidth>(p, c, at, columns, rows + words, panel);
  }
}

// Blocks of a multiprocessor: as many as 16 words a thread, or the 32 of 8 bits, leave registers
// for. Left to itself the compiler may spill for one more.
template <int kBits>
LOWBIT_KERNEL(kRelayoutThreads, kBits < 8 ? 8 : 5)
prepack_weight_kernel(const RelayoutParams p, const RelayoutConfig c) {
  const Place at = place_of_thread(c);
  const Columns columns = columns_of_unit(c, at.tile, static_cast<uint32_t>(p.format.k));
  prepack_planes<kBits>(p, c, at, columns,
                        reinterpret_cast<const uint32_t*>(p.qweight) + at.row() * p.qweight_stride,
                        reinterpret_cast<uint32_t*>(p.out) + at.panel * p.out_stride);
}

// ---- from fragments to rows ----

// What the unit of that column has from there on of the run of columns.
LOWBIT_DEVICE Piece piece_of_unit(const RelayoutConfig& c, const Columns& run, uint32_t column) {
  const uint32_t group = c.block_k.divide(column);
  const uint32_t inside = column - group * c.block_k.value;
  const uint32_t from = inside % kFragmentUnitColumns;
  const uint32_t left = smaller(kFragmentUnitColumns - from, c.block_k.value - inside);
  return {group * c.group_units.value + inside / kFragmentUnitColumns, from, column - run.begin,
          smaller(left, run.end - column)};
}

template <int kBits, int kLow = 0>
LOWBIT_DEVICE void unpack_planes(const RelayoutParams& p, const RelayoutConfig& c, const Place& at,
                                 const Columns& columns, const uint32_t* panel, uint32_t* rows) {
  constexpr int kWidth = plane_width(kBits - kLow);
  const auto words = static_cast<uint32_t>(plane_words(p.format.k, kWidth));
  const uint32_t word = at.tile * kWidth;
  uint32_t column = columns.begin;
  while (column < columns.end) {
    const Piece piece = piece_of_unit(c, columns, column);
    Lanes<kWidth> lanes;
    load_lanes(panel + lanes_offset<kBits, kLow>(piece.source, at.quad), c.whole_lanes, lanes);
    Tile<kWidth> tile;
    lanes_to_rows(lanes, tile);
    place_columns(piece, tile);
    LOWBIT_UNROLL
    for (int r = 0; r < kQuadRows; ++r) {
      if (at.row() + r >= p.format.n) break;
      store_row(tile.rows[r], words - word, c.whole_rows, piece.to == 0,
                rows + r * p.out_stride + word);
    }
    column += piece.count;
  }
  if constexpr (kLow + kWidth < kBits) {
    unpack_planes<kBits, kLow + kWidth>(p, c, at, columns, panel, rows + words);
  }
}

template <int kBits>
LOWBIT_KERNEL(kRelayoutThreads, kBits < 8 ? 8 : 5)
unpack_weight_kernel(const RelayoutParams p, const RelayoutConfig c) {
  const Place at = place_of_thread(c);
  const uint32_t begin = at.tile * kFragmentUnitColumns;
  const Columns columns{begin,
                        smaller(begin + kFragmentUnitColumns, static_cast<uint32_t>(p.format.k))};
  unpack_planes<kBits>(p, c, at, columns,
                       reinterpret_cast<const uint32_t*>(p.qweight) + at.panel * p.qweight_stride,
                       reinterpret_cast<uint32_t*>(p.out) + at.row() * p.out_stride);
}

}  // namespace lowbit::cuda
