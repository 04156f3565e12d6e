// Words as tables of fields of kWidth bits, numbered from the low end: packed layouts are canonical
// words whose fields stand at numbers with the bits in another order (docs/formats.md). Every
// exchange here is its own inverse.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace lowbit {

// The fields whose number has bit kLow and not bit kHigh.
template <int kWidth, int kHigh, int kLow>
LOWBIT_HOST_DEVICE constexpr uint32_t low_index_mask() {
  uint32_t mask = 0;
  for (int index = 0; index < 32 / kWidth; ++index) {
    const bool chosen = !(index >> kHigh & 1) && (index >> kLow & 1);
    if (chosen) mask |= ((1u << kWidth) - 1) << (index * kWidth);
  }
  return mask;
}

// Moves each field of the word from its number to that with the bits kHigh and kLow exchanged.
template <int kWidth, int kHigh, int kLow>
LOWBIT_HOST_DEVICE constexpr uint32_t swap_index_bits(uint32_t word) {
  constexpr int kDistance = ((1 << kHigh) - (1 << kLow)) * kWidth;
  constexpr uint32_t kMask = low_index_mask<kWidth, kHigh, kLow>();
  const uint32_t moved = (word >> kDistance ^ word) & kMask;
  return word ^ moved ^ moved << kDistance;
}

// The fields whose number lacks bit kBit.
template <int kWidth, int kBit>
LOWBIT_HOST_DEVICE constexpr uint32_t clear_bit_mask() {
  uint32_t mask = 0;
  for (int index = 0; index < 32 / kWidth; ++index) {
    if (!(index >> kBit & 1)) mask |= ((1u << kWidth) - 1) << (index * kWidth);
  }
  return mask;
}

// The same across two words, whose own number is a bit too: that one and bit kBit are exchanged.
template <int kWidth, int kBit>
LOWBIT_HOST_DEVICE constexpr void exchange_fields(uint32_t& word0, uint32_t& word1) {
  constexpr int kDistance = (1 << kBit) * kWidth;
  const uint32_t moved = (word0 >> kDistance ^ word1) & clear_bit_mask<kWidth, kBit>();
  word0 ^= moved << kDistance;
  word1 ^= moved;
}

}  // namespace lowbit
