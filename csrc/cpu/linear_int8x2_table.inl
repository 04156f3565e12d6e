// Tables as one or two planes of int8.

// Entry i of a table is about sum over planes of factor * (plane[i] - 128).
struct IntegerTable {
  int planes;
  float factor[2];
  uint8_t plane[2][16];
};

LOWBIT_INLINE bool all_integers(const float* table, int entries, float factor) {
  for (int i = 0; i < entries; ++i) {
    const float value = table[i] * factor;
    if (!(std::fabs(value) <= 127.0f) || value != std::nearbyint(value)) return false;
  }
  return true;
}

inline IntegerTable one_plane(const WeightView& w, float factor) {
  IntegerTable result{1, {1.0f / factor, 0.0f}, {}};
  for (int i = 0; i < 16; ++i) {
    const float integer = w.table[i % (1 << w.format.bits)] * factor;
    result.plane[0][i] = static_cast<uint8_t>(128 + static_cast<int>(integer));
  }
  return result;
}

// One plane where a power of two makes integers of all entries, else 15 bits in two.
inline IntegerTable integer_table(const WeightView& w) {
  const int entries = 1 << w.format.bits;
  for (int j = -16; j <= 16; ++j) {
    const float factor = std::ldexp(1.0f, j);
    if (all_integers(w.table, entries, factor)) return one_plane(w, factor);
  }
  IntegerTable result{};
  float largest = 0.0f;
  bool finite = true;
  for (int i = 0; i < entries; ++i) {
    finite = finite && std::isfinite(w.table[i]);
    largest = std::max(largest, std::fabs(w.table[i]));
  }
  const bool counts = finite && largest >= kSmallestX;
  const float unit = finite ? largest / kLargestX : std::numeric_limits<float>::quiet_NaN();
  result.planes = 2;
  result.factor[0] = 128.0f * unit;
  result.factor[1] = unit;
  for (int i = 0; i < 16; ++i) {
    const int value = counts ? static_cast<int>(std::nearbyint(w.table[i % entries] / unit)) : 0;
    const int high = (value + 64) >> 7;
    result.plane[0][i] = static_cast<uint8_t>(128 + high);
    result.plane[1][i] = static_cast<uint8_t>(128 + value - 128 * high);
  }
  return result;
}

inline void lookup_panel(const uint8_t* codes, int64_t columns, const uint8_t* table,
                         uint8_t* out) {
  const ByteTable entries = load_byte_table(table);
  for (int64_t i = 0; i < columns * kPanelRows; i += 64) {
    store_i32(out + i, lookup_bytes(entries, load_i32(codes + i)));
  }
}
