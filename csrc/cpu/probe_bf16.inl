// Kernel text of the probe of bfloat16 dot products: a loop of them on registers.

inline constexpr int kBf16Chains = 16;

inline float dot_bf16_rounds(int64_t rounds, float factor) {
  // Two numbers of bfloat16 in a lane; their products are too small to matter beside the sums.
  const I32 pair = splat_i32(std::bit_cast<int32_t>(factor) & static_cast<int32_t>(0xffff0000u));
  F32 chains[kBf16Chains];
  LOWBIT_UNROLL
  for (int c = 0; c < kBf16Chains; ++c) chains[c] = splat(static_cast<float>(c));
  for (int64_t i = 0; i < rounds; ++i) {
    LOWBIT_UNROLL
    for (int c = 0; c < kBf16Chains; ++c) chains[c] = dot_bf16(chains[c], pair, pair);
  }
  LOWBIT_UNROLL
  for (int c = 1; c < kBf16Chains; ++c) chains[0] = add(chains[0], chains[c]);
  return sum(chains[0]);
}
inline constexpr PeakLoop kDotBf16{4 * kBf16Chains * kLanes, dot_bf16_rounds};
