// Scratch memory that starts on a cache line.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace lowbit::cpu {

struct AlignedDelete {
  void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using AlignedMemory = std::unique_ptr<uint8_t[], AlignedDelete>;

inline AlignedMemory aligned_memory(int64_t bytes) {
  void* memory = ::operator new[](static_cast<size_t>(bytes), std::align_val_t{64});
  return AlignedMemory(static_cast<uint8_t*>(memory));
}

}  // namespace lowbit::cpu
