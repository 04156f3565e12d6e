// Cases of the host model: registers of wgmma between its products.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Fence {
  kRight,
  kNotNeeded,
  kSumsWritten,
  kFragmentWritten,
  kWrittenBehindIt,
  kSumsOverwritten,
  kShapesDiffer,
  kFragmentInFlight
};

// Two products with b[k, n] = n + 1 in groups of their own. The first has come back when its sums
// and its a are changed; then it is repeated.
template <Fence kCase>
LOWBIT_KERNEL(128)
fence_kernel(float* out) {
  LOWBIT_SHARED_ARRAY(uint16_t, b, 8 * 16, 128);
  const uint32_t t = thread_index();
  b[t] = float_to_float16(static_cast<float>(t % 64 / 8 + 1));
  fence_async_proxy();
  sync_block();
  const uint64_t columns = matrix_descriptor(b, 128, 128, Swizzle::kNone);
  const uint32_t one = floats_to_float16x2(1, 1), two = floats_to_float16x2(2, 2);
  uint32_t first[4] = {one, one, one, one}, second[4] = {two, two, two, two};
  float sums[4] = {}, others[4] = {1, 1, 1, 1};
  fence_wgmma();
  wgmma_float16<8>(sums, first, columns, false);
  commit_wgmma();
  wgmma_float16<8>(others, second, columns, true);
  if (kCase == Fence::kShapesDiffer) wgmma_float8_e4m3<8>(others, second, columns, true);
  commit_wgmma();
  if (kCase == Fence::kFragmentInFlight) second[1] = one;
  wait_wgmma<1>();
  if (kCase == Fence::kWrittenBehindIt) fence_wgmma();
  if (kCase == Fence::kRight || kCase == Fence::kSumsWritten || kCase == Fence::kWrittenBehindIt) {
    for (float& sum : sums) sum -= static_cast<float>(t);
  }
  if (kCase == Fence::kRight || kCase == Fence::kFragmentWritten) {
    for (uint32_t& pair : first) pair = two;
  }
  if (kCase == Fence::kRight) fence_wgmma();
  wgmma_float16<8>(sums, first, columns, kCase != Fence::kSumsOverwritten);
  commit_wgmma();
  wait_wgmma<0>();
  for (uint32_t i = 0; i < 4; ++i) out[t * 8 + i] = sums[i], out[t * 8 + 4 + i] = others[i];
}

template <Fence kCase>
void fence() {
  std::vector<float> out(1024);
  launch("fence", fence_kernel<kCase>, {1, 128}, nullptr, out.data());
  constexpr bool kChanges = kCase == Fence::kRight;
  for (uint32_t i = 0; i < 1024; ++i) {
    const auto t = static_cast<float>(i / 8), n = static_cast<float>(i / 8 % 4 * 2 + i % 2);
    const float sum = 16 * (n + 1) - (kChanges ? t : 0) + (kChanges ? 32 : 16) * (n + 1);
    expect(out[i] == (i % 8 < 4 ? sum : 1 + 32 * (n + 1)), "fence");
  }
}

// ---- products in a function of its own ----

enum class Callee { kRight, kSumsBehindFence, kFragmentBehindFence };

// Not inlined: its variables lie below those that its caller has fenced.
template <Callee kCase>
[[gnu::noinline]] void multiply_apart(float (&sums)[4], const uint32_t (&ones)[4], uint64_t b) {
  float own_sums[4] = {1, 1, 1, 1};
  const volatile uint32_t one = ones[0];
  const uint32_t own_ones[4] = {one, one, one, one};
  if (kCase == Callee::kRight) fence_wgmma();
  wgmma_float16<8>(kCase == Callee::kFragmentBehindFence ? sums : own_sums,
                   kCase == Callee::kSumsBehindFence ? ones : own_ones, b, true);
  commit_wgmma();
  wait_wgmma<0>();
  if (kCase == Callee::kFragmentBehindFence) return;
  for (uint32_t i = 0; i < 4; ++i) sums[i] = own_sums[i];
}

template <Callee kCase>
LOWBIT_KERNEL(128)
callee_kernel(float* out) {
  LOWBIT_SHARED_ARRAY(uint16_t, b, 8 * 16, 128);
  const uint32_t t = thread_index();
  b[t] = float_to_float16(static_cast<float>(t % 64 / 8 + 1));
  fence_async_proxy();
  sync_block();
  const uint32_t one = floats_to_float16x2(1, 1), ones[4] = {one, one, one, one};
  float sums[4] = {1, 1, 1, 1};
  fence_wgmma();
  multiply_apart<kCase>(sums, ones, matrix_descriptor(b, 128, 128, Swizzle::kNone));
  for (uint32_t i = 0; i < 4; ++i) out[t * 4 + i] = sums[i];
}

template <Callee kCase>
void callee() {
  std::vector<float> out(512);
  launch("callee", callee_kernel<kCase>, {1, 128}, nullptr, out.data());
  for (uint32_t i = 0; i < 512; ++i) {
    expect(out[i] == 1 + 16 * static_cast<float>(i / 4 % 4 * 2 + i % 2 + 1), "callee");
  }
}

const Cases kProductRegisterCases = {
    {"callee", callee<Callee::kRight>},
    {"callee, sums behind the fence", callee<Callee::kSumsBehindFence>},
    {"callee, a behind the fence", callee<Callee::kFragmentBehindFence>},
    {"fence", fence<Fence::kRight>},
    {"fence not needed", fence<Fence::kNotNeeded>},
    {"fence, sums written", fence<Fence::kSumsWritten>},
    {"fence, a written", fence<Fence::kFragmentWritten>},
    {"fence, written behind it", fence<Fence::kWrittenBehindIt>},
    {"fence, sums overwritten", fence<Fence::kSumsOverwritten>},
    {"fence, shapes differ", fence<Fence::kShapesDiffer>},
    {"fence, a in flight", fence<Fence::kFragmentInFlight>},
};

}  // namespace
}  // namespace lowbit::cuda
