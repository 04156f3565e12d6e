// Kernel text of dequantize_weight: decode a chunk of a row, round it, store it.

#include "decode_weight.inl"

inline int64_t dequantize_chunks(const WeightFormat& f) { return ceil_div(f.k, kChunk); }

// Tasks [begin, end); task t is chunk t % chunks of row t / chunks.
inline void dequantize_tasks(const DequantizeWeightParams& p, int64_t begin, int64_t end) {
  const WeightFormat& f = p.weight.format;
  const DecodeRow decode = decode_row_for(f.bits);
  const int64_t chunks = dequantize_chunks(f);
  alignas(64) float buffer[kChunk];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t row = task / chunks;
    const int64_t k0 = task % chunks * kChunk;
    const int64_t count = at_most(kChunk, f.k - k0);
    decode(p.weight, row, k0, count, buffer);
    store_elements(p.out_type, buffer, count, p.out, row * f.k + k0);
  }
}
