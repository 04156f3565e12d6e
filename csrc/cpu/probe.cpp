// The limits that timings are compared with: bytes a second of a read-only pass over memory, and
// operations a second of an instruction, both on torch's threads with the instruction set in force.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

#include "../torch_checks.h"

namespace lowbit::cpu {

// A loop of one instruction on registers, and its operations a round.
struct PeakLoop {
  int64_t operations;
  float (*run)(int64_t rounds, float factor);
};

}  // namespace lowbit::cpu

#define LOWBIT_KERNEL_TEXT "probe.inl"
#include "foreach_isa.h"

namespace lowbit::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr float kFactor = 0.5f;
constexpr double kSeconds = 2e-3;  // of a timing: long beside waking the threads
constexpr int kTimings = 8;

// The results of the loops go here, where the compiler cannot see that nobody reads them.
std::atomic<float> sink;

// Seconds that `body` takes when every thread calls it once with its number.
template <typename Body>
double seconds_on_all_threads(const Body& body) {
  const Clock::time_point start = Clock::now();
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) body(thread);
  });
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Rounds that take one thread about kSeconds.
int64_t rounds_of(const PeakLoop& loop) {
  for (int64_t rounds = 1024;; rounds *= 2) {
    const Clock::time_point start = Clock::now();
    sink = loop.run(rounds, kFactor);
    if (std::chrono::duration<double>(Clock::now() - start).count() > kSeconds) return rounds;
  }
}

// Operations a second of the fastest timing.
double peak(const PeakLoop& loop) {
  const int64_t rounds = rounds_of(loop);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kTimings; ++i) {
    best =
        std::min(best, seconds_on_all_threads([&](int64_t) { sink = loop.run(rounds, kFactor); }));
  }
  return static_cast<double>(num_threads() * rounds * loop.operations) / best;
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
  const double seconds =
      seconds_on_all_threads([&](int64_t thread) { sink = read(data + thread * share, share); });
  return static_cast<double>(num_threads() * share) * sizeof(float) / seconds;
}

double probe_peak(std::string kind) {
  if (kind == "fma") return peak(LOWBIT_FOR_CURRENT_ISA(kFma));
  refuse("_probe_peak", "kind", "be fma", "'", kind, "'");
}

}  // namespace lowbit::cpu
