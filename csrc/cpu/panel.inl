// A chunk of a panel: codes as bytes, scales and zeros of its 64 rows, numbers. Shared by the
// kernel texts that multiply.
//
// A code panel holds quads: 4 consecutive columns of one weight row in the bytes of a lane, 16 rows
// in a vector, four vectors for the 64 rows, then the next quad.

#include "decode_weight.inl"

inline constexpr int kVectors = static_cast<int>(kPanelRows) / kLanes;
inline constexpr int64_t kQuadBytes = kPanelRows * 4;
inline constexpr int64_t kCodePanelBytes = kMaxChunkColumns * kPanelRows;

// One chunk of columns of one scale group.
struct Chunk {
  int64_t index;
  int64_t group;
  int64_t k0;       // its first column
  int64_t columns;  // without padding
};

LOWBIT_INLINE Chunk chunk_at(const Chunks& chunks, const WeightFormat& f, int64_t index) {
  const int64_t group = index / chunks.per_group;
  const int64_t k0 = group * f.block_k + index % chunks.per_group * chunks.columns;
  const int64_t group_end = at_most((group + 1) * f.block_k, f.k);
  return {index, group, k0, at_most(chunks.columns, group_end - k0)};
}

// ---- codes of the panels layout ----

template <int kWidth, int kField>
LOWBIT_INLINE I32 byte_field(I32 bytes) {
  if constexpr (kWidth == 8) {
    return bytes;
  } else {
    constexpr int kMask = ((1 << kWidth) - 1) * 0x01010101;
    return bit_and(shift_right<kWidth * kField>(bytes), splat_i32(kMask));
  }
}

// Quad kQuad of a unit of kUnit columns; `vectors` is the first plane's vector of 16 rows. The bits
// of the planes from kShift on are joined.
template <int kBits, int kUnit, int kQuad, int kShift = 0>
LOWBIT_INLINE I32 unit_quad(const uint8_t* vectors) {
  constexpr int kWidth = plane_width(kBits);
  constexpr int kFields = 8 / kWidth;
  const I32 plane = load_i32(vectors + kQuad / kFields * kQuadBytes);
  I32 code = byte_field<kWidth, kQuad % kFields>(plane);
  if constexpr (kShift > 0) code = shift_left<kShift>(code);
  if constexpr (kWidth == kBits) {
    return code;
  } else {
    constexpr int kPlaneBytes = kUnit * kWidth / 32 * static_cast<int>(kQuadBytes);
    return bit_or(code,
                  unit_quad<kBits - kWidth, kUnit, kQuad, kShift + kWidth>(vectors + kPlaneBytes));
  }
}

template <int kBits, int... kQuads>
LOWBIT_INLINE void unpack_unit(const uint8_t* unit, uint8_t* codes,
                               std::integer_sequence<int, kQuads...>) {
  constexpr int kUnit = unit_columns(kBits);
  for (int j = 0; j < kVectors; ++j) {
    const uint8_t* vectors = unit + j * 64;
    uint8_t* out = codes + j * 64;
    (store_i32(out + kQuads * kQuadBytes, unit_quad<kBits, kUnit, kQuads>(vectors)), ...);
  }
}

// Fills a code panel and returns where the codes of the next chunk lie, null where they are not in
// one piece. Columns behind those of the chunk hold anything.
using FillCodes = const uint8_t* (*)(const WeightView&, int64_t panel, const Chunk&,
                                     uint8_t* codes);

// The codes of a chunk in the panels layout.
template <int kBits>
LOWBIT_INLINE const uint8_t* chunk_units(const WeightView& w, int64_t panel, const Chunk& chunk) {
  const int64_t in_group = chunk.k0 - chunk.group * w.format.block_k;
  const int64_t first = chunk.group * units_per_group(w.format) + in_group / unit_columns(kBits);
  return reinterpret_cast<const uint8_t*>(w.qweight + panel * w.qweight_stride) +
         first * unit_words(kBits) * 4;
}

template <int kBits>
inline const uint8_t* unpack_panel(const WeightView& w, int64_t panel, const Chunk& chunk,
                                   uint8_t* codes) {
  constexpr int64_t kUnit = unit_columns(kBits);
  const uint8_t* unit = chunk_units<kBits>(w, panel, chunk);
  for (int64_t left = chunk.columns; left > 0; left -= kUnit) {
    unpack_unit<kBits>(unit, codes, std::make_integer_sequence<int, unit_columns(kBits) / 4>());
    unit += unit_words(kBits) * 4;
    codes += kUnit / 4 * kQuadBytes;
  }
  return unit;
}

// The next chunk is fetched this much ahead of its place: its first codes are needed at once.
inline constexpr int64_t kAheadBytes = 1536;

// The codes of the next chunk, fetched from memory while this one is multiplied: a loop over the
// columns of this chunk calls fetch() for the columns of every step.
struct NextCodes {
  const uint8_t* codes;  // or null
  int64_t column_bytes;

  LOWBIT_INLINE void fetch(int64_t k, int64_t columns) const {
    if (!codes) return;
    const int64_t end = (k + columns) * column_bytes;
    for (int64_t i = (k * column_bytes + 63) & -64; i < end; i += 64) {
      prefetch_far(codes + i + kAheadBytes);
    }
  }
};

LOWBIT_INLINE NextCodes next_codes(const WeightView& w, const uint8_t* codes) {
  return {codes, kPanelRows * w.format.bits / 8};
}

// ---- codes of the canonical layout: row by row, quads scattered into the panel ----

// Codes of the blocks of 16 columns that hold [k0, k0 + columns), one byte each.
template <int kBits>
inline void row_codes(const WeightView& w, int64_t row, int64_t k0, int64_t columns,
                      uint8_t* codes) {
  const PlaneBlocks planes = row_planes<kBits>(w, row);
  const int64_t end = k0 + columns;
  for (int64_t block = k0 / kLanes; block * kLanes < end; ++block, codes += kLanes) {
    TailBlock tail;
    const bool whole = (block + 1) * kLanes <= w.format.k;
    const PlaneBlocks source = whole ? planes : tail_planes<kBits>(w, planes, block, tail);
    store_low_bytes(codes, load_codes<kBits, true>(source, block));
  }
}

template <int kBits>
inline const uint8_t* gather_panel(const WeightView& w, int64_t panel, const Chunk& chunk,
                                   uint8_t* codes) {
  const int64_t first = panel * kPanelRows;
  const int64_t rows = at_most(kPanelRows, w.format.n - first);
  uint8_t row[kMaxChunkColumns + 2 * kLanes] = {};
  for (int64_t r = 0; r < rows; ++r) {
    row_codes<kBits>(w, first + r, chunk.k0, chunk.columns, row);
    const uint8_t* quads = row + chunk.k0 % kLanes;
    for (int64_t k = 0; k < chunk.columns; k += 4) {
      std::memcpy(codes + k / 4 * kQuadBytes + r * 4, quads + k, 4);
    }
  }
  return nullptr;
}

inline FillCodes fill_codes_for(const WeightFormat& f) {
  static constexpr FillCodes kPanels[] = {unpack_panel<1>, unpack_panel<2>, unpack_panel<3>,
                                          unpack_panel<4>, unpack_panel<5>, unpack_panel<6>,
                                          unpack_panel<7>, unpack_panel<8>};
  static constexpr FillCodes kCanonical[] = {gather_panel<1>, gather_panel<2>, gather_panel<3>,
                                             gather_panel<4>, gather_panel<5>, gather_panel<6>,
                                             gather_panel<7>, gather_panel<8>};
  return f.layout == WeightLayout::kPanels ? kPanels[f.bits - 1] : kCanonical[f.bits - 1];
}

// ---- scales and zeros of one group ----

// S and z (or v) of the 64 rows, z as load_groups has it.
struct PanelGroup {
  alignas(64) float scale[kPanelRows];
  alignas(64) float zero[kPanelRows];
};

LOWBIT_INLINE int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
    case ElementType::kInt32:
      return 4;
    case ElementType::kFloat16:
    case ElementType::kBFloat16:
      return 2;
    default:
      return 1;
  }
}

// The values of a group for the rows of a panel, from one value a block of rows.
inline void gather_values(const WeightView& w, ElementType type, const void* source, int64_t stride,
                          int64_t panel, int64_t group, float* out) {
  const int64_t first = panel * kPanelRows;
  const int64_t rows = at_most(kPanelRows, w.format.n - first);
  const int64_t bytes = element_bytes(type);
  const auto* base = static_cast<const uint8_t*>(source) + group * bytes;
  uint8_t values[kPanelRows * 4] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = w.format.block_n == 1 ? first + r : (first + r) / w.format.block_n;
    std::memcpy(values + r * bytes, base + row * stride * bytes, static_cast<size_t>(bytes));
  }
  load_elements(type, values, 0, kPanelRows, out);
}

inline void load_values(const WeightView& w, ElementType type, const void* source, int64_t stride,
                        int64_t panel, int64_t group, float* out) {
  if (w.format.layout == WeightLayout::kPanels && w.format.block_n == 1) {
    const int64_t begin = (panel * scale_columns(w.format) + group) * kPanelRows;
    load_elements(type, source, begin, kPanelRows, out);
  } else {
    gather_values(w, type, source, stride, panel, group, out);
  }
}

inline void apply_s0(const WeightView& w, int64_t panel, float* scale) {
  const int64_t first = panel * kPanelRows;
  const int64_t rows = at_most(kPanelRows, w.format.n - first);
  for (int64_t r = 0; r < rows; ++r) scale[r] *= w.s0[(first + r) * w.s0_stride];
}

inline void load_panel_group(const WeightView& w, int64_t panel, int64_t group, PanelGroup& out) {
  load_values(w, w.scales_type, w.scales, w.scales_stride, panel, group, out.scale);
  if (w.s0) apply_s0(w, panel, out.scale);
  if (w.zeros) {
    load_values(w, w.zeros_type, w.zeros, w.zeros_stride, panel, group, out.zero);
  } else {
    const float z = w.format.zero_kind == ZeroKind::kMidpoint ? midpoint(w.format) : 0.0f;
    for (int v = 0; v < kVectors; ++v) store(out.zero + v * kLanes, splat(z));
  }
}

// ---- numbers ----

// value(t, scale, zero) of every code, t being the number that it stands for, as [column][64 rows];
// columns up to the next multiple of 4 are written.
template <typename Number, typename Value>
LOWBIT_INLINE void decode_quads(const uint8_t* codes, const PanelGroup& group, int64_t columns,
                                const Number& number, const Value& value, float* panel) {
  const I32 byte = splat_i32(255);
  for (int v = 0; v < kVectors; ++v) {
    const F32 scale = load(group.scale + v * kLanes);
    const F32 zero = load(group.zero + v * kLanes);
    for (int64_t k = 0; k < columns; k += 4) {
      const I32 quad = load_i32(codes + k / 4 * kQuadBytes + v * 64);
      float* out = panel + k * kPanelRows + v * kLanes;
      const auto put = [&](int i, I32 code) {
        store(out + i * kPanelRows, value(number(code), scale, zero));
      };
      put(0, bit_and(quad, byte));
      put(1, bit_and(shift_right<8>(quad), byte));
      put(2, bit_and(shift_right<16>(quad), byte));
      put(3, shift_right<24>(quad));
    }
  }
}

// The same with the numbers of a weight; `table` is its table_numbers if it has a table.
template <typename Value>
LOWBIT_INLINE void decode_panel(const WeightView& w, F32 table, const uint8_t* codes,
                                const PanelGroup& group, int64_t columns, const Value& value,
                                float* panel) {
  if (w.table) {
    const auto entry = [=](I32 code) { return lookup(table, code); };
    decode_quads(codes, group, columns, entry, value, panel);
  } else {
    const auto integer = [](I32 code) { return to_float(code); };
    decode_quads(codes, group, columns, integer, value, panel);
  }
}
