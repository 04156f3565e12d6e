// The limits that timings are compared with: bytes a second of a read-only pass over memory, and
// operations a second of an instruction, both on torch's threads with the instruction set in force.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <vector>

#include "../torch_checks.h"

namespace lowbit::cpu {

// A loop of one instruction on registers, and its operations a round.
struct PeakLoop {
  int64_t operations;
  float (*run)(int64_t rounds, float factor);
};

}  // namespace lowbit::cpu

#define LOWBIT_KERNEL_TEXT "probe.inl"
#define LOWBIT_KERNEL_LEVELS \
  (LOWBIT_SCALAR_LEVEL | LOWBIT_AVX2_LEVEL | LOWBIT_AVX512_LEVEL | LOWBIT_VNNI_LEVEL)
#include "foreach_isa.h"

#define LOWBIT_KERNEL_TEXT "probe_bf16.inl"
#define LOWBIT_KERNEL_LEVELS LOWBIT_BF16_LEVEL
#include "foreach_isa.h"

#define LOWBIT_KERNEL_TEXT "probe_tiles.inl"
#define LOWBIT_KERNEL_LEVELS LOWBIT_AMX_LEVEL
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr float kFactor = 0.5f;
constexpr double kSeconds = 2e-4;  // of a timing: short beside the time slice of a thread
constexpr int kTimings = 64;

// The results of the loops go here, where the compiler cannot see that nobody reads them.
std::atomic<float> sink;

template <typename Body>
double seconds_of(const Body& body) {
  const Clock::time_point start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Every thread calls body(its number) once.
template <typename Body>
void on_all_threads(const Body& body) {
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) body(thread);
  });
}

// Rounds that take about kSeconds.
int64_t rounds_of(const PeakLoop& loop) {
  int64_t rounds = 1024;
  while (seconds_of([&] { sink = loop.run(rounds, kFactor); }) < kSeconds) rounds *= 2;
  return rounds;
}

// Operations a second of all threads: each at its best while the others run too, so that threads of
// other processes take nothing off.
double peak(const PeakLoop& loop) {
  const int64_t rounds = rounds_of(loop);
  std::vector<double> rates(static_cast<size_t>(num_threads()), 0.0);
  on_all_threads([&](int64_t thread) {
    double& rate = rates[static_cast<size_t>(thread)];
    for (int i = 0; i < kTimings; ++i) {
      const double seconds = seconds_of([&] { sink = loop.run(rounds, kFactor); });
      rate = std::max(rate, static_cast<double>(rounds * loop.operations) / seconds);
    }
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

// The loop of a kind with the set in force; no operations where the set has no such instruction.
PeakLoop loop_of(const std::string& kind) {
  if (kind == "fma") return LOWBIT_FOR_CURRENT_ISA(kFma);
#ifdef LOWBIT_X86
  const Isa isa = current_isa();
  const bool tiles = isa >= Isa::kAmx;
  if (kind == "tile_int8") return tiles ? amx::kTileInt8 : PeakLoop{};
  if (kind == "tile_bf16") return tiles ? amx::kTileBf16 : PeakLoop{};
  if (kind == "dot_bf16") return isa >= Isa::kAvx512Bf16 ? avx512_bf16::kDotBf16 : PeakLoop{};
  if (kind == "dot_int8" && isa >= Isa::kAvx512Vnni) return avx512_vnni::kDotInt8;
#else
  if (kind == "tile_int8" || kind == "tile_bf16" || kind == "dot_bf16") return {};
#endif
  if (kind == "dot_int8") return LOWBIT_FOR_CURRENT_ISA(kDotInt8);
  refuse("_probe_peak", "kind", "be fma, dot_int8, dot_bf16, tile_int8 or tile_bf16", "'", kind,
         "'");
}

}  // namespace

double probe_read(const Tensor& buffer) {
  constexpr const char* kOp = "_probe_read";
  require_device_type(kOp, "buffer", buffer, DeviceType::CPU);
  require_dtype(kOp, "buffer", buffer, {ElementType::kFloat32});
  require_contiguous(kOp, "buffer", buffer);
  const auto* data = static_cast<const float*>(input_pointer(kOp, "buffer", buffer));
  // One stream a thread: more of them read slower.
  constexpr int64_t kStep = scalar::kReadStep;
  const int64_t share = buffer.numel() / num_threads() / kStep * kStep;
  LOWBIT_CHECK(share > 0, kOp, "buffer",
               "have at least " + std::to_string(kStep) + " elements a thread", buffer.numel());
  const auto read = LOWBIT_FOR_CURRENT_ISA(read_floats);
  const double seconds = seconds_of(
      [&] { on_all_threads([&](int64_t thread) { sink = read(data + thread * share, share); }); });
  return static_cast<double>(num_threads() * share) * sizeof(float) / seconds;
}

double probe_peak(std::string kind) {
  const PeakLoop loop = loop_of(kind);
  return loop.operations ? peak(loop) : 0.0;
}

}  // namespace lowbit::cpu
