// Decoding of a quantized weight row into fp32, a chunk of columns at a time, and the conversions
// between fp32 runs and stored element types. Shared by the kernel texts.

// Columns decoded in one go. A chunk starts at a multiple of it, so its blocks of 16 codes start on
// byte boundaries in every plane.
inline constexpr int64_t kChunk = 512;
inline constexpr int kMaxPlanes = 3;
// Groups that a chunk can meet (block_k = 1), rounded up to whole vectors.
inline constexpr int64_t kMaxGroups = kChunk + kLanes;

LOWBIT_INLINE int64_t round_up_lanes(int64_t count) { return (count + kLanes - 1) & -kLanes; }
LOWBIT_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- runs of stored elements <-> fp32 ----

// Reads `count` elements; writes fp32 up to the next multiple of 16, zeros behind the end.
template <typename Element, F32 (*kLoad)(const Element*)>
LOWBIT_INLINE void load_run(const Element* source, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, kLoad(source + i));
  if (i == count) return;
  Element tail[kLanes] = {};
  std::memcpy(tail, source + i, static_cast<size_t>(count - i) * sizeof(Element));
  store(out + i, kLoad(tail));
}

LOWBIT_INLINE void load_float8_run(const uint8_t* source, int64_t count,
                                   const std::array<float, 256>& values, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = values[source[i]];
  for (int64_t i = count; i < round_up_lanes(count); ++i) out[i] = 0.0f;
}

// load_run for the elements [begin, begin + count) of a tensor row.
inline void load_elements(ElementType type, const void* row, int64_t begin, int64_t count,
                          float* out) {
  const auto* bytes = static_cast<const uint8_t*>(row) + begin;
  const auto* halves = static_cast<const uint16_t*>(row) + begin;
  switch (type) {
    case ElementType::kFloat32:
      return load_run<float, load>(static_cast<const float*>(row) + begin, count, out);
    case ElementType::kFloat16:
      return load_run<uint16_t, load_f16>(halves, count, out);
    case ElementType::kBFloat16:
      return load_run<uint16_t, load_bf16>(halves, count, out);
    case ElementType::kUInt8:
      return load_run<uint8_t, load_u8>(bytes, count, out);
    case ElementType::kFloat8E4M3:
      return load_float8_run(bytes, count, kFloat8E4M3, out);
    case ElementType::kFloat8E8M0:
      return load_float8_run(bytes, count, kFloat8E8M0, out);
    case ElementType::kInt32:
      return;  // codes are never read as numbers
  }
}

// Writes `count` elements, each fp32 value rounded to nearest even; `source` may be read up to the
// next multiple of 16.
template <typename Element, void (*kStore)(Element*, F32)>
LOWBIT_INLINE void store_run(const float* source, int64_t count, Element* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) kStore(out + i, load(source + i));
  if (i == count) return;
  Element tail[kLanes];
  kStore(tail, load(source + i));
  std::memcpy(out + i, tail, static_cast<size_t>(count - i) * sizeof(Element));
}

inline void store_elements(ElementType type, const float* source, int64_t count, void* out,
                           int64_t begin) {
  switch (type) {
    case ElementType::kFloat32:
      return store_run<float, store>(source, count, static_cast<float*>(out) + begin);
    case ElementType::kFloat16:
      return store_run<uint16_t, store_f16>(source, count, static_cast<uint16_t*>(out) + begin);
    case ElementType::kBFloat16:
      return store_run<uint16_t, store_bf16>(source, count, static_cast<uint16_t*>(out) + begin);
    default:
      return;  // no other output type passes the entry's checks
  }
}

// ---- codes ----

// Where the blocks of 16 codes of one row are found: block b of a plane of width w lies
// 2 * w * (b - first_block) bytes behind `plane`.
struct PlaneBlocks {
  const uint8_t* plane[kMaxPlanes];
  int64_t first_block;
};

// The codes of one block. Bits above kBits are undefined unless kMasked.
template <int kBits, bool kMasked, int kPlane = 0>
LOWBIT_INLINE I32 load_codes(const PlaneBlocks& planes, int64_t block) {
  constexpr int kWidth = plane_width(kBits);
  const I32 fields =
      load_fields<kWidth>(planes.plane[kPlane] + (block - planes.first_block) * 2 * kWidth);
  if constexpr (kWidth == kBits) {
    return kMasked ? mask_fields<kWidth>(fields) : fields;
  } else {
    return join_fields<kWidth>(mask_fields<kWidth>(fields),
                               load_codes<kBits - kWidth, kMasked, kPlane + 1>(planes, block));
  }
}

template <int kBits>
LOWBIT_INLINE PlaneBlocks row_planes(const WeightView& w, int64_t row) {
  PlaneBlocks planes{};
  const int32_t* words = w.qweight + row * w.qweight_stride;
  int remaining = kBits;
  for (int p = 0; remaining > 0; ++p) {
    const int width = plane_width(remaining);
    planes.plane[p] = reinterpret_cast<const uint8_t*>(words);
    words += plane_words(w.format.k, width);
    remaining -= width;
  }
  return planes;
}

// The last block of a row copied out, when its planes end before 16 codes are full.
struct TailBlock {
  uint8_t bytes[kMaxPlanes][kLanes];
};

template <int kBits>
LOWBIT_INLINE PlaneBlocks tail_planes(const WeightView& w, const PlaneBlocks& planes, int64_t block,
                                      TailBlock& tail) {
  PlaneBlocks copied{};
  copied.first_block = block;
  int remaining = kBits;
  for (int p = 0; remaining > 0; ++p) {
    const int width = plane_width(remaining);
    const int64_t offset = block * 2 * width;
    const int64_t left = plane_words(w.format.k, width) * 4 - offset;
    std::memset(tail.bytes[p], 0, kLanes);
    std::memcpy(tail.bytes[p], planes.plane[p] + offset,
                static_cast<size_t>(at_most(left, 2 * width)));
    copied.plane[p] = tail.bytes[p];
    remaining -= width;
  }
  return copied;
}

// ---- scales and zeros ----

// S and z (or v) of the groups that a chunk meets; without stored zeros z is 0 or the midpoint,
// which turns every kind but `value` into (t - z) * S with unchanged bits.
struct GroupValues {
  int64_t first;
  int64_t last;
  float scale[kMaxGroups];
  float zero[kMaxGroups];
};

LOWBIT_INLINE float midpoint(const WeightFormat& f) {
  return static_cast<float>(1 << (f.bits - 1));
}

inline void load_groups(const WeightView& w, int64_t row, int64_t k0, int64_t count,
                        GroupValues& groups) {
  const WeightFormat& f = w.format;
  groups.first = k0 / f.block_k;
  groups.last = (k0 + count - 1) / f.block_k;
  const int64_t number = groups.last - groups.first + 1;
  const int64_t scale_row = row / f.block_n;
  const int64_t offset = scale_row * w.scales_stride + groups.first;
  load_elements(w.scales_type, w.scales, offset, number, groups.scale);
  if (w.s0) {
    const F32 s0 = splat(w.s0[row * w.s0_stride]);
    for (int64_t i = 0; i < number; i += kLanes) {
      store(groups.scale + i, mul(load(groups.scale + i), s0));
    }
  }
  if (w.zeros) {
    load_elements(w.zeros_type, w.zeros, scale_row * w.zeros_stride + groups.first, number,
                  groups.zero);
  } else {
    const float z = f.zero_kind == ZeroKind::kMidpoint ? midpoint(f) : 0.0f;
    for (int64_t i = 0; i < number; i += kLanes) store(groups.zero + i, splat(z));
  }
}

LOWBIT_INLINE F32 weight_value(F32 t, F32 scale, F32 zero, ZeroKind kind) {
  return kind == ZeroKind::kValue ? add(mul(t, scale), zero) : mul(sub(t, zero), scale);
}

// The table, repeated to 16 entries, so that undefined bits of an index cannot matter.
LOWBIT_INLINE F32 table_numbers(const WeightView& w) {
  float numbers[kLanes];
  for (int i = 0; i < kLanes; ++i) numbers[i] = w.table[i % (1 << w.format.bits)];
  return load(numbers);
}

// What the codes stand for, repeated in the same way.
template <int kBits>
LOWBIT_INLINE F32 code_numbers(const WeightView& w) {
  if (w.table) return table_numbers(w);
  float numbers[kLanes];
  for (int i = 0; i < kLanes; ++i) numbers[i] = static_cast<float>(i % (1 << kBits));
  return load(numbers);
}

// ---- blocks of 16 columns ----

// Blocks of one group. Up to 4 bits the group has at most 16 different weights: they are computed
// once and looked up.
template <int kBits>
LOWBIT_INLINE void decode_group(const PlaneBlocks& planes, int64_t begin, int64_t end, F32 numbers,
                                F32 scale, F32 zero, ZeroKind kind, float* out) {
  if constexpr (kBits <= kMaxTableBits) {
    const F32 values = weight_value(numbers, scale, zero, kind);
    for (int64_t block = begin; block < end; ++block, out += kLanes) {
      store(out, lookup(values, load_codes<kBits, false>(planes, block)));
    }
  } else {
    for (int64_t block = begin; block < end; ++block, out += kLanes) {
      const F32 t = to_float(load_codes<kBits, true>(planes, block));
      store(out, weight_value(t, scale, zero, kind));
    }
  }
}

// One block that starts in `group` and runs on into others.
template <int kBits>
LOWBIT_INLINE void decode_mixed_block(const WeightView& w, const PlaneBlocks& planes, int64_t block,
                                      int64_t group, F32 numbers, const GroupValues& groups,
                                      float* out) {
  float scale[kLanes], zero[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (block * kLanes + lane == (group + 1) * w.format.block_k) ++group;
    const int64_t index = at_most(group, groups.last) - groups.first;
    scale[lane] = groups.scale[index];
    zero[lane] = groups.zero[index];
  }
  F32 t;
  if constexpr (kBits <= kMaxTableBits) {
    t = lookup(numbers, load_codes<kBits, false>(planes, block));
  } else {
    t = to_float(load_codes<kBits, true>(planes, block));
  }
  store(out, weight_value(t, load(scale), load(zero), w.format.zero_kind));
}

// Blocks [begin, end) of a row: runs of blocks inside one group, and blocks across a group's end.
template <int kBits>
LOWBIT_INLINE void decode_blocks(const WeightView& w, const PlaneBlocks& planes, int64_t begin,
                                 int64_t end, F32 numbers, const GroupValues& groups, float* out) {
  const int64_t block_k = w.format.block_k;
  int64_t group = begin * kLanes / block_k;
  for (int64_t block = begin; block < end;) {
    while ((group + 1) * block_k <= block * kLanes) ++group;
    const int64_t group_end = (group + 1) * block_k;
    const int64_t run_end = group_end >= w.format.k ? end : at_most(end, group_end / kLanes);
    float* block_out = out + (block - begin) * kLanes;
    if (run_end > block) {
      decode_group<kBits>(planes, block, run_end, numbers,
                          splat(groups.scale[group - groups.first]),
                          splat(groups.zero[group - groups.first]), w.format.zero_kind, block_out);
      block = run_end;
    } else {
      decode_mixed_block<kBits>(w, planes, block, group, numbers, groups, block_out);
      ++block;
    }
  }
}

// Decodes columns [k0, k0 + count) of a row, k0 a multiple of 16 and count at most kChunk; writes
// zeros behind them up to the next multiple of 16.
template <int kBits>
inline void decode_row(const WeightView& w, int64_t row, int64_t k0, int64_t count, float* out) {
  GroupValues groups;
  load_groups(w, row, k0, count, groups);
  F32 numbers = splat(0.0f);
  if constexpr (kBits <= kMaxTableBits) numbers = code_numbers<kBits>(w);
  const PlaneBlocks planes = row_planes<kBits>(w, row);
  const int64_t begin = k0 / kLanes;
  const int64_t full = begin + count / kLanes;
  decode_blocks<kBits>(w, planes, begin, full, numbers, groups, out);
  if (count % kLanes == 0) return;
  TailBlock tail;
  out += (full - begin) * kLanes;
  decode_blocks<kBits>(w, tail_planes<kBits>(w, planes, full, tail), full, full + 1, numbers,
                       groups, out);
  for (int64_t i = count % kLanes; i < kLanes; ++i) out[i] = 0.0f;
}

using DecodeRow = void (*)(const WeightView&, int64_t row, int64_t k0, int64_t count, float* out);

inline DecodeRow decode_row_for(int bits) {
  static constexpr DecodeRow kDecode[] = {decode_row<1>, decode_row<2>, decode_row<3>,
                                          decode_row<4>, decode_row<5>, decode_row<6>,
                                          decode_row<7>, decode_row<8>};
  return kDecode[bits - 1];
}
