// Bits of words: any function of three operands, any choice of bytes.
#pragma once

#include "../platform.cuh"

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

template <uint32_t kTable>
LOWBIT_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result = 0;
  for (uint32_t entry = 0; entry < 8; ++entry) {
    if (!(kTable >> entry & 1)) continue;
    result |= (entry & 4 ? a : ~a) & (entry & 2 ? b : ~b) & (entry & 1 ? c : ~c);
  }
  return result;
}

LOWBIT_DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> 4 * i & 0xf;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (choice & 7)) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << 8 * i;
  }
  return result;
}

#else

// Bit i of the result is bit 4 * a_i + 2 * b_i + c_i of kTable: build it by applying the function
// to 0xf0, 0xcc and 0xaa (PTX ISA, lop3).
template <uint32_t kTable>
LOWBIT_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return result;
}

// Byte i of the result is the byte of (b, a) that digit i of the selector names: 0 to 3 those of a,
// 4 to 7 those of b; 8 more spreads its sign.
LOWBIT_DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
}

#endif

}  // namespace lowbit::cuda
