// Compiles the kernel text named by LOWBIT_KERNEL_TEXT once per level of the instruction set, each
// copy in the namespace of that level. LOWBIT_KERNEL_LEVELS says which; without it the text is
// compiled for scalar, AVX2 and AVX-512, which is enough where a text multiplies in fp32. Included
// once per kernel text.
//
// Include every standard header before this file: an inline library function first seen inside a
// target region would be compiled for that target, and the linker may keep that copy for all CPUs.

#include "isa.h"
#include "simd.h"

#ifndef LOWBIT_SCALAR_LEVEL
#define LOWBIT_SCALAR_LEVEL 1
#define LOWBIT_AVX2_LEVEL 2
#define LOWBIT_AVX512_LEVEL 4
#define LOWBIT_VNNI_LEVEL 8
#define LOWBIT_BF16_LEVEL 16
#define LOWBIT_AMX_LEVEL 32
#endif
#ifndef LOWBIT_KERNEL_LEVELS
#define LOWBIT_KERNEL_LEVELS (LOWBIT_SCALAR_LEVEL | LOWBIT_AVX2_LEVEL | LOWBIT_AVX512_LEVEL)
#endif

#if LOWBIT_KERNEL_LEVELS & LOWBIT_SCALAR_LEVEL
namespace lowbit::cpu::scalar {
#include LOWBIT_KERNEL_TEXT
}
#endif

#ifdef LOWBIT_X86
#if LOWBIT_KERNEL_LEVELS & LOWBIT_AVX2_LEVEL
LOWBIT_BEGIN_AVX2
namespace lowbit::cpu::avx2 {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif

#if LOWBIT_KERNEL_LEVELS & LOWBIT_AVX512_LEVEL
LOWBIT_BEGIN_AVX512
namespace lowbit::cpu::avx512 {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif

#if LOWBIT_KERNEL_LEVELS & LOWBIT_VNNI_LEVEL
LOWBIT_BEGIN_AVX512_VNNI
namespace lowbit::cpu::avx512_vnni {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif

#if LOWBIT_KERNEL_LEVELS & LOWBIT_BF16_LEVEL
LOWBIT_BEGIN_AVX512_BF16
namespace lowbit::cpu::avx512_bf16 {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif

#if LOWBIT_KERNEL_LEVELS & LOWBIT_AMX_LEVEL
LOWBIT_BEGIN_AMX
namespace lowbit::cpu::amx {
#include LOWBIT_KERNEL_TEXT
}
LOWBIT_END_ISA
#endif
#endif

#undef LOWBIT_KERNEL_TEXT
#undef LOWBIT_KERNEL_LEVELS

// The copy of `function`, an entry of a text with the usual three levels, for the set in force on
// this thread.
#undef LOWBIT_FOR_CURRENT_ISA
#ifdef LOWBIT_X86
#define LOWBIT_FOR_CURRENT_ISA(function)                                                  \
  ::lowbit::cpu::pick_isa(::lowbit::cpu::scalar::function, ::lowbit::cpu::avx2::function, \
                          ::lowbit::cpu::avx512::function)
#else
#define LOWBIT_FOR_CURRENT_ISA(function) (::lowbit::cpu::scalar::function)
#endif
