// Kernel text of prepack_weight and unpack_weight: codes from canonical rows to panels and back.
// Plain loops over a few rows, which compilers turn into vector code.
//
// A word of a canonical plane holds 32 / width consecutive columns. The panel keeps these words,
// one a row, but with the columns in another order inside: column 4 * f + i is field f of byte i.

// Rows at a time. Their stride is a power of two as often as not, and then all their lines fall
// into the same few sets of the first-level cache: 16 rows would be more than it has ways.
inline constexpr int kRows = 8;

// ---- the order of columns in a word ----

// Index 4 * f + i -> i * fields + f: the two low bits of the index become its high bits.
template <int kWidth>
LOWBIT_INLINE uint32_t to_panel_order(uint32_t word) {
  if constexpr (kWidth == 4) {
    word = swap_index_bits<4, 2, 1>(word);
    return swap_index_bits<4, 1, 0>(word);
  } else if constexpr (kWidth == 2) {
    word = swap_index_bits<2, 3, 1>(word);
    return swap_index_bits<2, 2, 0>(word);
  } else if constexpr (kWidth == 1) {
    word = swap_index_bits<1, 4, 1>(word);
    word = swap_index_bits<1, 3, 0>(word);
    word = swap_index_bits<1, 2, 1>(word);
    return swap_index_bits<1, 1, 0>(word);
  } else {
    return word;
  }
}

template <int kWidth>
LOWBIT_INLINE uint32_t to_canonical_order(uint32_t word) {
  if constexpr (kWidth == 4) {
    word = swap_index_bits<4, 1, 0>(word);
    return swap_index_bits<4, 2, 1>(word);
  } else if constexpr (kWidth == 2) {
    word = swap_index_bits<2, 2, 0>(word);
    return swap_index_bits<2, 3, 1>(word);
  } else if constexpr (kWidth == 1) {
    word = swap_index_bits<1, 1, 0>(word);
    word = swap_index_bits<1, 2, 1>(word);
    word = swap_index_bits<1, 3, 0>(word);
    return swap_index_bits<1, 4, 1>(word);
  } else {
    return word;
  }
}

// ---- where a word stands ----

// One word of the panel's order, for every row: 32 / width columns of a plane of one unit.
struct WordPlace {
  int64_t word;    // where its columns begin in a canonical row
  int shift;       // and at which bit of that word
  uint32_t mask;   // its bits that are codes; what follows are the next group's columns or padding
  bool spills;     // its last codes are in the next canonical word
  int64_t vector;  // words from the start of the panel to the vectors of its 64 rows
};

inline WordPlace word_place(int64_t plane_start, int width, int64_t column, int64_t stop,
                            int64_t vector) {
  const int64_t bit = column * width;
  const int64_t left = (stop - column) * width;
  const int valid = left < 0 ? 0 : left > 32 ? 32 : static_cast<int>(left);
  const int shift = static_cast<int>(bit % 32);
  const uint32_t mask = valid == 32 ? ~0u : (1u << valid) - 1;
  return {plane_start + bit / 32, shift, mask, shift + valid > 32, vector};
}

// Calls visit(width, place) for every word of a panel's rows, in the order of the panel.
template <typename Visit>
LOWBIT_INLINE void for_each_word(const WeightFormat& f, const Visit& visit) {
  const int unit = unit_columns(f.bits);
  int64_t vector = 0;
  for (int64_t group = 0; group < f.k; group += f.block_k) {
    const int64_t stop = f.k - group < f.block_k ? f.k : group + f.block_k;
    for (int64_t begin = group; begin < stop; begin += unit) {
      int64_t plane_start = 0;
      for (int remaining = f.bits; remaining > 0; remaining -= plane_width(remaining)) {
        const int width = plane_width(remaining);
        for (int64_t column = begin; column < begin + unit; column += 32 / width) {
          visit(width, word_place(plane_start, width, column, stop, vector));
          vector += kPanelRows;
        }
        plane_start += plane_words(f.k, width);
      }
    }
  }
}

// ---- one word of each row ----

template <int kWidth>
LOWBIT_INLINE void pack_rows(const uint32_t* rows, int64_t stride, int64_t count,
                             const WordPlace& place, uint32_t* out) {
  uint32_t lanes[kRows] = {};
  if (place.mask) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t* from = rows + i * stride + place.word;
      lanes[i] = from[0] >> place.shift;
      if (place.spills) lanes[i] |= from[1] << (32 - place.shift);
    }
  }
  for (int i = 0; i < kRows; ++i) out[i] = to_panel_order<kWidth>(lanes[i] & place.mask);
}

// The rows must hold zeros where these codes go.
template <int kWidth>
LOWBIT_INLINE void unpack_rows(const uint32_t* in, int64_t count, const WordPlace& place,
                               uint32_t* rows, int64_t stride) {
  if (!place.mask) return;
  uint32_t lanes[kRows];
  for (int i = 0; i < kRows; ++i) lanes[i] = to_canonical_order<kWidth>(in[i]) & place.mask;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t* to = rows + i * stride + place.word;
    to[0] |= lanes[i] << place.shift;
    if (place.spills) to[1] |= lanes[i] >> (32 - place.shift);
  }
}

LOWBIT_INLINE void pack_rows(int width, const uint32_t* rows, int64_t stride, int64_t count,
                             const WordPlace& place, uint32_t* out) {
  switch (width) {
    case 1:
      return pack_rows<1>(rows, stride, count, place, out);
    case 2:
      return pack_rows<2>(rows, stride, count, place, out);
    case 4:
      return pack_rows<4>(rows, stride, count, place, out);
    default:
      return pack_rows<8>(rows, stride, count, place, out);
  }
}

LOWBIT_INLINE void unpack_rows(int width, const uint32_t* in, int64_t count, const WordPlace& place,
                               uint32_t* rows, int64_t stride) {
  switch (width) {
    case 1:
      return unpack_rows<1>(in, count, place, rows, stride);
    case 2:
      return unpack_rows<2>(in, count, place, rows, stride);
    case 4:
      return unpack_rows<4>(in, count, place, rows, stride);
    default:
      return unpack_rows<8>(in, count, place, rows, stride);
  }
}

// ---- panels ----

// How many of the kRows rows from `first` on the weight has.
LOWBIT_INLINE int64_t count_rows(const WeightFormat& f, int64_t first) {
  const int64_t left = f.n - first;
  return left < 0 ? 0 : left < kRows ? left : kRows;
}

// Panels [begin, end).
inline void prepack_panels(const WeightFormat& f, const int32_t* canonical, int64_t stride,
                           int32_t* panels, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    auto* out = reinterpret_cast<uint32_t*>(panels) + panel * panel_words(f);
    for (int64_t row = 0; row < kPanelRows; row += kRows) {
      const int64_t first = panel * kPanelRows + row;
      const int64_t count = count_rows(f, first);
      const auto* rows = reinterpret_cast<const uint32_t*>(canonical) + first * stride;
      for_each_word(f, [&](int width, const WordPlace& place) {
        pack_rows(width, rows, stride, count, place, out + place.vector + row);
      });
    }
  }
}

// Panels [begin, end) into dense canonical rows.
inline void unpack_panels(const WeightFormat& f, const int32_t* panels, int32_t* canonical,
                          int64_t begin, int64_t end) {
  const int64_t stride = row_words(f.k, f.bits);
  for (int64_t panel = begin; panel < end; ++panel) {
    const auto* in = reinterpret_cast<const uint32_t*>(panels) + panel * panel_words(f);
    for (int64_t row = 0; row < kPanelRows; row += kRows) {
      const int64_t first = panel * kPanelRows + row;
      const int64_t count = count_rows(f, first);
      if (count == 0) break;
      auto* rows = reinterpret_cast<uint32_t*>(canonical) + first * stride;
      std::memset(rows, 0, static_cast<size_t>(count * stride) * sizeof *rows);
      for_each_word(f, [&](int width, const WordPlace& place) {
        unpack_rows(width, in + place.vector + row, count, place, rows, stride);
      });
    }
  }
}
