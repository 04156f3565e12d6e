// Which instruction set the kernels of the calling thread use. A kernel entry picks its function
// pointers once, on the thread that was called; worker threads run what they are given.
#pragma once

#include <string>

namespace lowbit::cpu {

// Levels: each includes those before it.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx };

// The set forced for this thread, else the process default, else the best this CPU has.
Isa current_isa();

// Request "" asks, a name forces it for the calling thread, "auto" undoes that.
// Returns the name in force; throws on an unknown name or one that this CPU or build lacks.
std::string cpu_isa(std::string request);

// The same for the process default, which holds on every thread that forces nothing.
std::string cpu_default_isa(std::string request);

// The one of three copies that serves the level in force.
template <typename T>
T pick_isa(T scalar, T avx2, T avx512) {
  const Isa isa = current_isa();
  return isa >= Isa::kAvx512 ? avx512 : isa == Isa::kAvx2 ? avx2 : scalar;
}

}  // namespace lowbit::cpu
