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

// The chunk behind one that is not the last.
LOWBIT_INLINE Chunk chunk_after(const Chunks& chunks, const WeightFormat& f, const Chunk& chunk) {
  const int64_t k0 = chunk.k0 + chunk.columns;
  int64_t group = chunk.group;
  if (k0 == (group + 1) * f.block_k) ++group;
  const int64_t group_end = at_most((group + 1) * f.block_k, f.k);
  return {chunk.index + 1, group, k0, at_most(chunks.columns, group_end - k0)};
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

// Codes come from memory in time if they are asked for this much earlier: more than a thread gets
// from memory in the time of its latency.
inline constexpr int64_t kAheadBytes = 3072;

// A unit of the panels layout as it is stored, one of a stream that runs on behind it.
template <int kBits>
struct StoredUnit {
  static constexpr int kColumns = unit_columns(kBits);
  static constexpr int64_t kBytes = unit_words(kBits) * 4;
  template <int kQuad>
  LOWBIT_INLINE static I32 quad(const uint8_t* vectors) {
    return unit_quad<kBits, kColumns, kQuad>(vectors);
  }
  // The same with anything in the bits above kBits, where that saves work.
  template <int kQuad>
  LOWBIT_INLINE static I32 loose_quad(const uint8_t* vectors) {
    if constexpr (kBits == plane_width(kBits)) {
      constexpr int kFields = 8 / kBits;
      const I32 plane = load_i32(vectors + kQuad / kFields * kQuadBytes);
      return shift_right<kQuad % kFields * kBits>(plane);
    } else {
      return quad<kQuad>(vectors);
    }
  }
  LOWBIT_INLINE static void fetch(const uint8_t* unit) {
    LOWBIT_UNROLL
    for (int64_t i = 0; i < kBytes; i += 64) prefetch_far(unit + kAheadBytes + i);
  }
};

// One quad of a code panel, taken as a unit.
struct PanelUnit {
  static constexpr int kColumns = 4;
  static constexpr int64_t kBytes = kQuadBytes;
  template <int kQuad>
  LOWBIT_INLINE static I32 quad(const uint8_t* vectors) {
    return load_i32(vectors);
  }
  template <int kQuad>
  LOWBIT_INLINE static I32 loose_quad(const uint8_t* vectors) {
    return load_i32(vectors);
  }
  LOWBIT_INLINE static void fetch(const uint8_t*) {}
};

template <typename Unit>
using UnitQuads = std::make_integer_sequence<int, Unit::kColumns / 4>;

template <typename Unit, int... kQuads>
LOWBIT_INLINE void unpack_unit(const uint8_t* unit, uint8_t* codes,
                               std::integer_sequence<int, kQuads...>) {
  LOWBIT_UNROLL
  for (int j = 0; j < kVectors; ++j) {
    const uint8_t* vectors = unit + j * 64;
    uint8_t* out = codes + j * 64;
    (store_i32(out + kQuads * kQuadBytes, Unit::template quad<kQuads>(vectors)), ...);
  }
}

// `count` units into a code panel.
template <typename Unit>
inline void unpack_units(const uint8_t* units, int64_t count, uint8_t* codes) {
  for (; count > 0; --count) {
    Unit::fetch(units);
    unpack_unit<Unit>(units, codes, UnitQuads<Unit>());
    units += Unit::kBytes;
    codes += Unit::kColumns / 4 * kQuadBytes;
  }
}

// Units of a chunk as they are stored, the last one perhaps with columns behind the chunk.
struct UnitRun {
  const uint8_t* units;
  int64_t count;
};

// Finds the units of chunks. Making one divides, finding does not.
class StoredUnits {
 public:
  explicit StoredUnits(const WeightView& w)
      : codes_(reinterpret_cast<const uint8_t*>(w.qweight)),
        panel_bytes_(w.qweight_stride * 4),
        group_units_(units_per_group(w.format)),
        block_k_(w.format.block_k),
        columns_log2_(std::countr_zero(static_cast<unsigned>(unit_columns(w.format.bits)))),
        unit_bytes_(unit_words(w.format.bits) * 4) {}

  LOWBIT_INLINE UnitRun operator()(int64_t panel, const Chunk& chunk) const {
    const int64_t in_group = chunk.k0 - chunk.group * block_k_;
    const int64_t first = chunk.group * group_units_ + (in_group >> columns_log2_);
    const int64_t partial = (int64_t{1} << columns_log2_) - 1;
    return {codes_ + panel * panel_bytes_ + first * unit_bytes_,
            (chunk.columns + partial) >> columns_log2_};
  }

 private:
  const uint8_t* codes_;
  int64_t panel_bytes_, group_units_, block_k_;
  int columns_log2_;
  int64_t unit_bytes_;
};

// Fills a code panel with the columns of a chunk. What follows up to a whole unit becomes anything.
using FillCodes = void (*)(const WeightView&, int64_t panel, const Chunk&, uint8_t* codes);

template <typename Unit>
inline void unpack_panel(const WeightView& w, int64_t panel, const Chunk& chunk, uint8_t* codes) {
  const UnitRun run = StoredUnits(w)(panel, chunk);
  unpack_units<Unit>(run.units, run.count, codes);
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
inline void gather_panel(const WeightView& w, int64_t panel, const Chunk& chunk, uint8_t* codes) {
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
}

// The copy of a function for stored units of a bit width.
#define LOWBIT_FOR_BITS(bits, function)     \
  ((bits) == 1   ? &function<StoredUnit<1>> \
   : (bits) == 2 ? &function<StoredUnit<2>> \
   : (bits) == 3 ? &function<StoredUnit<3>> \
   : (bits) == 4 ? &function<StoredUnit<4>> \
   : (bits) == 5 ? &function<StoredUnit<5>> \
   : (bits) == 6 ? &function<StoredUnit<6>> \
   : (bits) == 7 ? &function<StoredUnit<7>> \
                 : &function<StoredUnit<8>>)

// The same, or the copy for a code panel, into which codes of the canonical layout are gathered.
#define LOWBIT_FOR_UNITS(format, function)                            \
  ((format).layout == WeightLayout::kCanonical ? &function<PanelUnit> \
                                               : LOWBIT_FOR_BITS((format).bits, function))

inline FillCodes fill_codes_for(const WeightFormat& f) {
  static constexpr FillCodes kCanonical[] = {gather_panel<1>, gather_panel<2>, gather_panel<3>,
                                             gather_panel<4>, gather_panel<5>, gather_panel<6>,
                                             gather_panel<7>, gather_panel<8>};
  if (f.layout == WeightLayout::kCanonical) return kCanonical[f.bits - 1];
  return LOWBIT_FOR_BITS(f.bits, unpack_panel);
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

// The values of the next group: too few at a time for the CPU to see that they follow.
LOWBIT_INLINE void fetch_next_values(ElementType type, const void* source, int64_t begin) {
  const int64_t bytes = element_bytes(type);
  const auto* next = static_cast<const uint8_t*>(source) + begin * bytes;
  for (int64_t i = 0; i < kPanelRows * bytes; i += 64) prefetch_far(next + i);
}

inline void load_values(const WeightView& w, ElementType type, const void* source, int64_t stride,
                        int64_t panel, int64_t group, float* out) {
  if (w.format.layout == WeightLayout::kPanels && w.format.block_n == 1) {
    const int64_t begin = (panel * scale_columns(w.format) + group) * kPanelRows;
    fetch_next_values(type, source, begin + kPanelRows);
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
