// setmaxnreg: a warpgroup gives registers to the block's pool or takes some. sm_90a.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/register_budget.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

template <uint32_t kRegisters>
LOWBIT_DEVICE void grow_registers() {
  model::grow_registers(kRegisters);
}

template <uint32_t kRegisters>
LOWBIT_DEVICE void shrink_registers() {
  model::shrink_registers(kRegisters);
}

#else

// Registers of each thread from here on; a multiple of 8, 24 to 256. Waits until the pool has them.
// ptxas ignores these unless the kernel says how many blocks share the registers at its entry:
// LOWBIT_KERNEL(threads, 1).
template <uint32_t kRegisters>
LOWBIT_DEVICE void grow_registers() {
  LOWBIT_ASM_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <uint32_t kRegisters>
LOWBIT_DEVICE void shrink_registers() {
  LOWBIT_ASM_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#endif

}  // namespace lowbit::cuda
