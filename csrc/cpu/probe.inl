// Kernel texts of the probes: a read-only pass over memory, and loops of one instruction on
// registers. Each loop returns a number made from its results, so that no work can be left out.

// ---- memory ----

inline constexpr int kReadChains = 8;
inline constexpr int64_t kReadStep = kReadChains * kLanes;

// The sum of count floats; count is a multiple of kReadStep.
inline float read_floats(const float* data, int64_t count) {
  F32 sums[kReadChains];
  LOWBIT_UNROLL
  for (int c = 0; c < kReadChains; ++c) sums[c] = splat(0.0f);
  for (int64_t i = 0; i < count; i += kReadStep) {
    LOWBIT_UNROLL
    for (int c = 0; c < kReadChains; ++c) sums[c] = add(sums[c], load(data + i + c * kLanes));
  }
  LOWBIT_UNROLL
  for (int c = 1; c < kReadChains; ++c) sums[0] = add(sums[0], sums[c]);
  return sum(sums[0]);
}

// ---- arithmetic ----

// Enough independent chains to hide the latency of a multiply-add on two ports.
inline constexpr int kFmaChains = kRegisters >= 32 ? 16 : kRegisters / 2;

// Every value tends to factor / (1 - factor): none overflows or becomes subnormal.
inline float fma_rounds(int64_t rounds, float factor) {
  const F32 a = splat(factor);
  F32 chains[kFmaChains];
  LOWBIT_UNROLL
  for (int c = 0; c < kFmaChains; ++c) chains[c] = splat(static_cast<float>(c));
  for (int64_t i = 0; i < rounds; ++i) {
    LOWBIT_UNROLL
    for (int c = 0; c < kFmaChains; ++c) chains[c] = fma(chains[c], a, a);
  }
  LOWBIT_UNROLL
  for (int c = 1; c < kFmaChains; ++c) chains[0] = add(chains[0], chains[c]);
  return sum(chains[0]);
}
inline constexpr PeakLoop kFma{2 * kFmaChains * kLanes, fma_rounds};

// One instruction where the set has one for it, else what stands in for it.
inline constexpr int kIntChains = kRegisters >= 32 ? 16 : kRegisters / 2;

inline float dot_int8_rounds(int64_t rounds, float factor) {
  // Operands that differ from round to round: nothing can be taken out of the loop.
  constexpr int kQuads = 16;
  alignas(64) uint8_t bytes[4 * kQuads];
  for (int i = 0; i < 4 * kQuads; ++i)
    bytes[i] = static_cast<uint8_t>(factor * static_cast<float>(i));
  const Codes codes = dot_codes(load_i32(bytes));
  I32 chains[kIntChains];
  LOWBIT_UNROLL
  for (int c = 0; c < kIntChains; ++c) chains[c] = splat_i32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    const Quad quad = dot_quad(reinterpret_cast<const int8_t*>(bytes) + 4 * (i % kQuads));
    LOWBIT_UNROLL
    for (int c = 0; c < kIntChains; ++c) chains[c] = dot(chains[c], codes, quad);
  }
  LOWBIT_UNROLL
  for (int c = 1; c < kIntChains; ++c) chains[0] = add_i32(chains[0], chains[c]);
  return sum(to_float(chains[0]));
}
inline constexpr PeakLoop kDotInt8{8 * kIntChains * kLanes, dot_int8_rounds};
