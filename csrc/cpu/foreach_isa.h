// Compiles the kernel text named by LOWBIT_KERNEL_TEXT once per instruction set, each copy in the
// namespace of that set (lowbit::cpu::scalar, ::avx2, ::avx512). Included once per kernel text.
//
// Include every standard header before this file: an inline library function first seen inside a
// target region would be compiled for that target, and the linker may keep that copy for all CPUs.

#include "isa.h"
#include "simd.h"

namespace lowbit::cpu::scalar {
#include LOWBIT_KERNEL_TEXT
}

#ifdef LOWBIT_X86
LOWBIT_BEGIN_AVX2
namespace lowbit::cpu::avx2 {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA

LOWBIT_BEGIN_AVX512
namespace lowbit::cpu::avx512 {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif

#undef LOWBIT_KERNEL_TEXT

// The copy of `function`, an entry of the kernel text, for the set in force on this thread.
#undef LOWBIT_FOR_CURRENT_ISA
#ifdef LOWBIT_X86
#define LOWBIT_FOR_CURRENT_ISA(function)                                                  \
  ::lowbit::cpu::pick_isa(::lowbit::cpu::scalar::function, ::lowbit::cpu::avx2::function, \
                          ::lowbit::cpu::avx512::function)
#else
#define LOWBIT_FOR_CURRENT_ISA(function) (::lowbit::cpu::scalar::function)
#endif
