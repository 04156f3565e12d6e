// x as two planes of int8 with a scale for every row and chunk, x = scale * (128 * high + low).

#include "linear_panel.inl"

// |128 * high + low| is at most 128 * 127.
inline constexpr float kLargestX = 16256.0f;
// Chunks of smaller numbers count as zero: their scale has no reciprocal.
inline constexpr float kSmallestX = 0x1p-100f;

struct XChunk {
  float scale;
  float inverse;
};

// The bits of a magnitude order as integers do, infinity and NaN last.
LOWBIT_INLINE XChunk scale_of_x(const float* x, int64_t width) {
  I32 largest = splat_i32(0);
  for (int64_t k = 0; k < width; k += kLanes) {
    largest = max_i32(largest, bit_and(bits_of(load(x + k)), splat_i32(0x7fffffff)));
  }
  const int32_t bits = largest_i32(largest);
  const float magnitude = std::bit_cast<float>(bits);
  if (bits >= 0x7f800000) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  if (magnitude < kSmallestX) return {0.0f, 0.0f};
  return {magnitude / kLargestX, kLargestX / magnitude};
}

// One row of one chunk: both planes, one behind the other, and its side values.
inline void pack_chunk_int8x2(const LinearPass& pass, int64_t c, int64_t row, const float* x,
                              uint8_t* high_plane) {
  const int64_t width = pass.chunks.width;
  const XChunk chunk = scale_of_x(x, width);
  uint8_t* low_plane = high_plane + width;
  I32 high_sum = splat_i32(0), low_sum = splat_i32(0);
  for (int64_t k = 0; k < width; k += kLanes) {
    I32 q = splat_i32(0);  // also where x is not finite
    if (chunk.inverse != 0.0f) q = round_to_i32(mul(load(x + k), splat(chunk.inverse)));
    const I32 high = shift_signed<7>(add_i32(q, splat_i32(64)));
    const I32 low = sub_i32(q, shift_left<7>(high));
    store_low_bytes(high_plane + k, high);
    store_low_bytes(low_plane + k, low);
    high_sum = add_i32(high_sum, high);
    low_sum = add_i32(low_sum, low);
  }
  const int32_t high = sum_i32(high_sum), low = sum_i32(low_sum);
  const int64_t index = x_row_index(pass, c, row);
  pass.x_scale[index] = chunk.scale;
  pass.x_sum[index] = static_cast<int32_t>(static_cast<uint32_t>(low) << 16 | (high & 0xffff));
  pass.x_total[index] = static_cast<float>(128 * high + low) * chunk.scale;
}

inline void pack_rows_int8x2(const LinearPass& pass, int64_t begin, int64_t end) {
  for_each_x(pass, begin, end, [&](int64_t c, int64_t row, const float* x) {
    pack_chunk_int8x2(pass, c, row, x, x_row(pass, c, row));
  });
}
