// setmaxnreg on the model: its arguments and who comes to it. Registers themselves are not counted:
// how many a kernel has is known to ptxas alone.
#pragma once

#include "barriers.h"

namespace lowbit::cuda::model {

inline void set_registers(uint32_t registers, const char* operation) {
  const Unwatched unwatched;
  maybe_switch();
  require(registers >= 24 && registers <= 256 && registers % 8 == 0,
          "registers of a thread must be a multiple of 8 from 24 to 256");
  meet_warp(kWholeWarp, operation, nullptr, [](void* const*) {});
}

}  // namespace lowbit::cuda::model
