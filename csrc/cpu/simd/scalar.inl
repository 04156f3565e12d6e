// The specification: every function of the other files means what its loop here does.

// How many F32 fit into the registers.
inline constexpr int kRegisters = 4;

struct F32 {
  float lane[kLanes];
};
struct I32 {
  uint32_t lane[kLanes];
};

template <typename Vector = F32, typename Function>
LOWBIT_INLINE Vector each_lane(Function function) {
  Vector result;
  for (int i = 0; i < kLanes; ++i) result.lane[i] = function(i);
  return result;
}

LOWBIT_INLINE F32 splat(float value) {
  return each_lane([=](int) { return value; });
}
LOWBIT_INLINE F32 load(const float* p) {
  return each_lane([=](int i) { return p[i]; });
}
// A load for several uses. Compilers like to fold a plain load into every operation that uses it,
// which makes the load ports the limit of a register tile (1.3 times slower on AVX-512).
LOWBIT_INLINE F32 load_once(const float* p) { return load(p); }
LOWBIT_INLINE void store(float* p, F32 a) { std::memcpy(p, a.lane, sizeof a.lane); }
LOWBIT_INLINE F32 add(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] + b.lane[i]; });
}
LOWBIT_INLINE F32 sub(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] - b.lane[i]; });
}
LOWBIT_INLINE F32 mul(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] * b.lane[i]; });
}
// The lesser lane; that of b where one is NaN.
LOWBIT_INLINE F32 min(F32 a, F32 b) {
  return each_lane([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// a * b + c, rounded once.
LOWBIT_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return each_lane([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
// Sum of the lanes: halves are added until one lane is left.
LOWBIT_INLINE float sum(F32 a) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
  }
  return a.lane[0];
}
LOWBIT_INLINE F32 to_float(I32 a) {
  return each_lane([&](int i) { return static_cast<float>(static_cast<int32_t>(a.lane[i])); });
}
// table[index % 16] in every lane.
LOWBIT_INLINE F32 lookup(F32 table, I32 index) {
  return each_lane([&](int i) { return table.lane[index.lane[i] % kLanes]; });
}

// Sixteen consecutive fields of kWidth bits, read from 2 * kWidth bytes. Bits above a lane's field
// are undefined until mask_fields clears them.
template <int kWidth>
LOWBIT_INLINE I32 load_fields(const uint8_t* p) {
  return each_lane<I32>(
      [=](int i) { return static_cast<uint32_t>(p[i * kWidth / 8]) >> (i * kWidth % 8); });
}
template <int kWidth>
LOWBIT_INLINE I32 mask_fields(I32 a) {
  return each_lane<I32>([&](int i) { return a.lane[i] & ((1u << kWidth) - 1); });
}
// low | high << kShift
template <int kShift>
LOWBIT_INLINE I32 join_fields(I32 low, I32 high) {
  return each_lane<I32>([&](int i) { return low.lane[i] | high.lane[i] << kShift; });
}

LOWBIT_INLINE F32 load_u8(const uint8_t* p) {
  return each_lane([=](int i) { return static_cast<float>(p[i]); });
}
LOWBIT_INLINE F32 load_f16(const uint16_t* p) {
  return each_lane([=](int i) { return float16_to_float(p[i]); });
}
LOWBIT_INLINE F32 load_bf16(const uint16_t* p) {
  return each_lane([=](int i) { return bfloat16_to_float(p[i]); });
}
LOWBIT_INLINE void store_f16(uint16_t* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_float16(a.lane[i]);
}
LOWBIT_INLINE void store_bf16(uint16_t* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_bfloat16(a.lane[i]);
}

// ---- integers: lanes of 32 bits, or of four bytes ----

LOWBIT_INLINE I32 splat_i32(int32_t value) {
  return each_lane<I32>([=](int) { return static_cast<uint32_t>(value); });
}
LOWBIT_INLINE I32 load_i32(const void* p) {
  I32 a;
  std::memcpy(a.lane, p, sizeof a.lane);
  return a;
}
LOWBIT_INLINE void store_i32(void* p, I32 a) { std::memcpy(p, a.lane, sizeof a.lane); }
template <int kShift>
LOWBIT_INLINE I32 shift_right(I32 a) {
  return each_lane<I32>([&](int i) { return a.lane[i] >> kShift; });
}
template <int kShift>
LOWBIT_INLINE I32 shift_left(I32 a) {
  return each_lane<I32>([&](int i) { return a.lane[i] << kShift; });
}
LOWBIT_INLINE I32 bit_and(I32 a, I32 b) {
  return each_lane<I32>([&](int i) { return a.lane[i] & b.lane[i]; });
}
LOWBIT_INLINE I32 bit_or(I32 a, I32 b) {
  return each_lane<I32>([&](int i) { return a.lane[i] | b.lane[i]; });
}
LOWBIT_INLINE I32 add_i32(I32 a, I32 b) {
  return each_lane<I32>([&](int i) { return a.lane[i] + b.lane[i]; });
}
LOWBIT_INLINE I32 sub_i32(I32 a, I32 b) {
  return each_lane<I32>([&](int i) { return a.lane[i] - b.lane[i]; });
}
LOWBIT_INLINE I32 max_i32(I32 a, I32 b) {
  return each_lane<I32>([&](int i) {
    return static_cast<int32_t>(a.lane[i]) > static_cast<int32_t>(b.lane[i]) ? a.lane[i]
                                                                             : b.lane[i];
  });
}
LOWBIT_INLINE int32_t sum_i32(I32 a) {
  uint32_t total = 0;
  for (uint32_t lane : a.lane) total += lane;
  return static_cast<int32_t>(total);
}
LOWBIT_INLINE int32_t largest_i32(I32 a) {
  int32_t largest = static_cast<int32_t>(a.lane[0]);
  for (uint32_t lane : a.lane) {
    largest = static_cast<int32_t>(lane) > largest ? static_cast<int32_t>(lane) : largest;
  }
  return largest;
}
// Arithmetic shift.
template <int kShift>
LOWBIT_INLINE I32 shift_signed(I32 a) {
  return each_lane<I32>(
      [&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(a.lane[i]) >> kShift); });
}
LOWBIT_INLINE I32 bits_of(F32 a) {
  return each_lane<I32>([&](int i) { return std::bit_cast<uint32_t>(a.lane[i]); });
}
// Half to even; INT32_MIN for what does not fit and for NaN.
LOWBIT_INLINE I32 round_to_i32(F32 a) {
  return each_lane<I32>([&](int i) {
    const bool fits = a.lane[i] >= -0x1p31f && a.lane[i] < 0x1p31f;
    return fits ? static_cast<uint32_t>(static_cast<int32_t>(std::nearbyint(a.lane[i])))
                : 0x80000000u;
  });
}
// The low byte of every lane.
LOWBIT_INLINE void store_low_bytes(uint8_t* p, I32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(a.lane[i]);
}
// table[byte] for every byte of `bytes`, each below 16.
struct ByteTable {
  uint8_t entry[16];
};
LOWBIT_INLINE ByteTable load_byte_table(const uint8_t* p) {
  ByteTable table;
  std::memcpy(table.entry, p, sizeof table.entry);
  return table;
}
LOWBIT_INLINE I32 lookup_bytes(ByteTable table, I32 bytes) {
  return each_lane<I32>([&](int i) {
    uint32_t result = 0;
    for (int b = 0; b < 4; ++b) {
      result |= uint32_t{table.entry[bytes.lane[i] >> 8 * b & 15]} << 8 * b;
    }
    return result;
  });
}
// A hint: into the second-level cache.
LOWBIT_INLINE void prefetch_far(const void*) {}

// ---- dot products of four bytes: unsigned codes with a broadcast quad of signed bytes ----

inline constexpr int kDotRows = 1;     // x rows and
inline constexpr int kDotVectors = 1;  // vectors of codes whose sums stay in registers

struct Codes {
  I32 bytes;
};
struct Quad {
  int8_t value[4];
};
LOWBIT_INLINE Codes dot_codes(I32 bytes) { return {bytes}; }
LOWBIT_INLINE Quad dot_quad(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
LOWBIT_INLINE I32 dot(I32 sum, Codes codes, Quad quad) {
  return each_lane<I32>([&](int i) {
    int32_t total = 0;
    for (int b = 0; b < 4; ++b) {
      total += static_cast<int32_t>(codes.bytes.lane[i] >> 8 * b & 255u) * quad.value[b];
    }
    return sum.lane[i] + static_cast<uint32_t>(total);
  });
}
// sum + a.low * b.low + a.high * b.high, halves of a lane as signed 16-bit numbers.
LOWBIT_INLINE I32 dot_halves(I32 sum, I32 a, I32 b) {
  return each_lane<I32>([&](int i) {
    const auto low = [](uint32_t v) { return static_cast<int32_t>(static_cast<int16_t>(v)); };
    const auto high = [](uint32_t v) { return static_cast<int32_t>(v) >> 16; };
    return sum.lane[i] + static_cast<uint32_t>(low(a.lane[i]) * low(b.lane[i])) +
           static_cast<uint32_t>(high(a.lane[i]) * high(b.lane[i]));
  });
}
