#include "isa.h"

#include <array>
#include <atomic>
#include <string_view>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../torch_checks.h"
#include "simd.h"

namespace lowbit::cpu {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"scalar",      "avx2",        "avx512",
                                                    "avx512_vnni", "avx512_bf16", "amx"};
constexpr int kUnset = -1;

#ifdef LOWBIT_X86
// Linux gives a process the tile registers only on request.
bool tiles_granted() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
Isa find_best_isa() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return Isa::kScalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::kAvx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::kAvx512Vnni;
  const bool tiles = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
                     __builtin_cpu_supports("amx-bf16");
  return tiles && tiles_granted() ? Isa::kAmx : Isa::kAvx512Bf16;
}
#else
Isa find_best_isa() { return Isa::kScalar; }
#endif

Isa best_isa() {
  static const Isa best = find_best_isa();
  return best;
}

std::atomic<int> process_default{kUnset};
thread_local int thread_force = kUnset;

Isa default_isa() {
  const int choice = process_default.load(std::memory_order_relaxed);
  return choice == kUnset ? best_isa() : static_cast<Isa>(choice);
}

std::string name_of(Isa isa) { return std::string(kNames[static_cast<size_t>(isa)]); }

// The number of a named set, or kUnset for "auto".
int parse_request(const char* op, const std::string& request) {
  if (request == "auto") return kUnset;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
    if (request == kNames[static_cast<size_t>(i)]) return i;
  }
  std::string available;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
    available.append(", ").append(kNames[static_cast<size_t>(i)]);
  }
  const std::string need = "be '', auto or an instruction set of this CPU and build" + available;
  // The name may well be right, so this is no ValueError.
  throw std::runtime_error(sentence(op, "request", need, "'", request, "'"));
}

}  // namespace

Isa current_isa() {
  return thread_force == kUnset ? default_isa() : static_cast<Isa>(thread_force);
}

std::string cpu_isa(std::string request) {
  if (!request.empty()) thread_force = parse_request("_cpu_isa", request);
  return name_of(current_isa());
}

std::string cpu_default_isa(std::string request) {
  if (!request.empty()) process_default = parse_request("_cpu_default_isa", request);
  return name_of(default_isa());
}

}  // namespace lowbit::cpu
