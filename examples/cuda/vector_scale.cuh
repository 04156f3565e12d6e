// vector_scale: y = x * s. Bound by memory, so all that matters is to ask for it in few and wide
// accesses: 16 bytes at a time where x and y allow it, single elements before and behind.
#pragma once

#include "config.h"
#include "cuda/device.cuh"

namespace lowbit::cuda::examples {

struct VectorScaleParams {
  const void* x;  // may be y
  void* y;
  float s;
};

// The elements of one type as bits, the product in fp32, rounded once.
template <ElementType kType>
struct Element {
  static constexpr bool kIsFloat32 = kType == ElementType::kFloat32;
  static constexpr uint32_t kPerWord = kIsFloat32 ? 1 : 2;
  using Bits = std::conditional_t<kIsFloat32, uint32_t, uint16_t>;

  static LOWBIT_DEVICE float to_float(uint32_t bits) {
    if constexpr (kIsFloat32) return bits_to_float(bits);
    const auto half = static_cast<uint16_t>(bits);
    return kType == ElementType::kFloat16 ? float16_to_float(half) : bfloat16_to_float(half);
  }

  // One element, or two neighbours.
  static LOWBIT_DEVICE uint32_t scale_word(uint32_t word, float s) {
    const float products[2] = {mul_rn(to_float(word), s), mul_rn(to_float(word >> 16), s)};
    return pack_output<kType>(products);
  }
};

// Every thread takes each kStep-th pack, where kStep is the number of threads: neighbours access
// neighbouring memory, and any number of blocks covers any number of elements.
template <ElementType kType>
LOWBIT_KERNEL(kVectorScaleThreads)
vector_scale_kernel(const VectorScaleParams p, const VectorScaleConfig c) {
  using E = Element<kType>;
  constexpr int64_t kPerPack = kPackBytes / sizeof(typename E::Bits);
  const auto* x = static_cast<const typename E::Bits*>(p.x);
  auto* y = static_cast<typename E::Bits*>(p.y);
  const int64_t first = int64_t{block_index()} * block_size() + thread_index();
  const int64_t step = int64_t{grid_size()} * block_size();

  for (int64_t pack = first; pack < c.packs; pack += step) {
    const int64_t at = c.head + pack * kPerPack;
    uint32_t words[4];
    load_16_bytes(words, x + at);
    for (uint32_t& word : words) word = E::scale_word(word, p.s);
    store_16_bytes(y + at, words);
  }
  for (int64_t single = first; single < c.singles; single += step) {
    const int64_t at = single < c.head ? single : single + c.packs * kPerPack;
    y[at] = static_cast<typename E::Bits>(E::scale_word(x[at], p.s));
  }
}

}  // namespace lowbit::cuda::examples
