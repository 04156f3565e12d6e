// Fused multiply-add of 16-bit floats on the model.
#pragma once

#include <cmath>

#include "../conversions.cuh"

namespace lowbit::cuda::model {

// a * b + c for a product that double holds, to a float whose last bit is set if anything was lost
// (rounding to odd): a second rounding, to 16 bits, then sees no tie that is none. Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008.
inline float fma_to_odd(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, total = product + c;
  const auto nearest = static_cast<float>(total);
  if (!std::isfinite(nearest)) return nearest;
  const double part = total - product;
  const double lost = (product - (total - part)) + (c - part);  // exact (Knuth's TwoSum)
  const double beyond = (total - static_cast<double>(nearest)) + lost;
  if (beyond == 0) return nearest;
  uint32_t bits = float_to_bits(nearest);
  if (nearest != 0 && (beyond > 0) != (nearest > 0)) --bits;  // towards zero
  return bits_to_float(bits | 1u);
}

template <typename Widen, typename Narrow>
uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c, const Widen& widen, const Narrow& narrow) {
  uint32_t result = 0;
  for (uint32_t half = 0; half < 2; ++half) {
    const auto number = [&](uint32_t pair) {
      return widen(static_cast<uint16_t>(pair >> 16 * half));
    };
    const uint32_t rounded = narrow(fma_to_odd(number(a), number(b), number(c)));
    result |= rounded << 16 * half;
  }
  return result;
}

}  // namespace lowbit::cuda::model
