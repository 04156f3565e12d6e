// What the host model does with right kernels and with wrong ones. Arguments: a case, the first
// seed, the number of seeds. Ends with "ok", or with the words of what was found.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "cuda/launch.cuh"
#include "cuda/tensor_map.cuh"

namespace lowbit::cuda {
namespace {

constexpr uint32_t kThreads = 64;
using Words = std::vector<uint32_t>;

void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("wrong value: %s\n", what);
  std::exit(1);
}

Words counted(uint32_t n) {
  Words words(n);
  for (uint32_t i = 0; i < n; ++i) words[i] = i;
  return words;
}

// ---- barriers of a block ----

enum class Barrier { kRight, kMissing, kCountsDiffer, kOneThreadAway, kHalfWarps };

template <Barrier kCase>
LOWBIT_KERNEL(kThreads)
reverse_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, kThreads, 4);
  const uint32_t t = thread_index();
  words[t] = in[t];
  if (kCase == Barrier::kOneThreadAway && t == 5) return;
  if (kCase == Barrier::kHalfWarps && t % 32 < 16) sync_named_barrier(1, 32);
  if (kCase == Barrier::kCountsDiffer) sync_named_barrier(1, t < 32 ? 64 : 32);
  if (kCase != Barrier::kMissing) sync_block();
  out[t] = words[kThreads - 1 - t];
}

template <Barrier kCase>
void reverse() {
  const Words in = counted(kThreads);
  Words out(kThreads);
  launch("reverse", reverse_kernel<kCase>, {1, kThreads}, nullptr, out.data(), in.data());
  for (uint32_t t = 0; t < kThreads; ++t) expect(out[t] == kThreads - 1 - t, "reverse");
}

// One warp hands words to the other, which says when it has read them.
enum class Handoff { kRight, kNobodyReads };

template <Handoff kCase>
LOWBIT_KERNEL(kThreads)
hand_off_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  for (uint32_t round = 0; round < 3; ++round) {
    if (warp_index() == 0) {
      if (round > 0) sync_named_barrier(2, kThreads);
      words[lane_index()] = round * 100 + lane_index();
      arrive_named_barrier(1, kThreads);
    } else {
      sync_named_barrier(1, kThreads);
      out[round * 32 + lane_index()] = words[lane_index()];
      if (round < 2 && kCase == Handoff::kRight) arrive_named_barrier(2, kThreads);
    }
  }
}

template <Handoff kCase>
void hand_off() {
  Words out(96);
  launch("hand_off", hand_off_kernel<kCase>, {1, kThreads}, nullptr, out.data());
  for (uint32_t i = 0; i < 96; ++i) expect(out[i] == i / 32 * 100 + i % 32, "hand_off");
}

// ---- warps ----

enum class Warp { kRight, kLanesDiverge, kOutsideTheMask, kNoSync };

template <Warp kCase>
LOWBIT_KERNEL(32)
warp_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  const uint32_t lane = lane_index();
  words[lane] = lane;
  if (kCase != Warp::kNoSync) sync_warp();
  const uint32_t next = words[(lane + 1) % 32];
  if (kCase == Warp::kLanesDiverge && lane == 3) {
    out[lane] = ballot(true);
    return;
  }
  if (kCase == Warp::kOutsideTheMask && lane < 16) shuffle(lane, 20, 32, 0xffffu);
  out[lane] = reduce_add(next) + shuffle_down(lane, 1, 8);
}

template <Warp kCase>
void warp() {
  Words out(32);
  launch("warp", warp_kernel<kCase>, {1, 32}, nullptr, out.data());
  for (uint32_t l = 0; l < 32; ++l) expect(out[l] == 496 + (l % 8 == 7 ? l : l + 1), "warp");
}

// ---- shared memory ----

enum class Shared { kRight, kOverrun, kOverrunOfDynamic, kTooLittle, kMisaligned };

template <Shared kCase>
LOWBIT_KERNEL(32)
shared_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, fixed, 31, 4);
  SharedMemoryCutter cutter;
  auto* first = cutter.take<uint32_t>(31, 16);
  auto* second = cutter.take<uint32_t>(32, 16);
  const uint32_t lane = lane_index();
  if (kCase == Shared::kOverrun || lane < 31) fixed[lane] = lane;
  if (kCase == Shared::kOverrunOfDynamic || lane < 31) first[lane] = lane;
  second[lane] = lane;
  if (kCase == Shared::kMisaligned) {
    uint32_t words[4];
    load_16_bytes(words, second + lane);
  }
  sync_warp();
  out[block_index() * 32 + lane] = fixed[lane % 31] + first[lane % 31] + second[lane];
}

template <Shared kCase>
void shared() {
  Words out(64);
  const int64_t bytes = kCase == Shared::kTooLittle ? 128 : 256;
  launch("shared", shared_kernel<kCase>, {2, 32, bytes}, nullptr, out.data());
  for (uint32_t i = 0; i < 64; ++i) expect(out[i] == i % 32 % 31 * 2 + i % 32, "shared");
}

// ---- cp.async ----

enum class Copy {
  kRight,
  kNoWait,
  kWaitTooShort,
  kNoBarrier,
  kMisaligned,
  kPastTheEnd,
  kEndsInFlight
};

template <Copy kCase>
LOWBIT_KERNEL(32)
copy_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 16);
  const uint32_t lane = lane_index();
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t at = half * 128 + lane * 4;
    copy_async_16(words + at, in + at + (kCase == Copy::kPastTheEnd ? 4 : 0) +
                                  (kCase == Copy::kMisaligned ? 1 : 0));
    commit_async_copies();
  }
  if (kCase == Copy::kEndsInFlight) return;
  if (kCase == Copy::kWaitTooShort) wait_async_copies<1>();
  if (kCase != Copy::kNoWait && kCase != Copy::kWaitTooShort) wait_async_copies<0>();
  if (kCase != Copy::kNoBarrier) sync_warp();
  for (uint32_t i = lane; i < 256; i += 32) out[i] = words[255 - i];
  wait_async_copies<0>();
}

template <Copy kCase>
void copy() {
  const Words in = counted(256);
  Words out(256);
  launch("copy", copy_kernel<kCase>, {1, 32}, nullptr, out.data(), in.data());
  for (uint32_t i = 0; i < 256; ++i) expect(out[i] == 255 - i, "copy");
}

// ---- global memory between blocks ----

enum class Last { kRight, kNotReset, kRelaxed, kNoBarrier };

// Every block adds its words; the last one to end adds the sums of all, in their order.
template <Last kCase>
LOWBIT_KERNEL(kThreads)
sum_kernel(uint32_t* total, uint32_t* sums, uint32_t* ended, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, order, 1, 4);
  const uint32_t t = thread_index(), b = block_index();
  const uint32_t sum = reduce_add(load_constant(in + b * kThreads + t));
  if (lane_index() == 0) sums[b * 2 + warp_index()] = sum;
  if (kCase != Last::kNoBarrier) sync_block();
  if (t == 0)
    *order = kCase == Last::kRelaxed ? atomic_add(ended, 1) : add_acquire_release(ended, 1);
  sync_block();
  if (*order % grid_size() != grid_size() - 1 || (kCase == Last::kNotReset && *order != 6)) return;
  if (t != 0) return;
  uint32_t all = 0;
  for (uint32_t i = 0; i < grid_size() * 2; ++i) all += sums[i];
  *total = all;
  if (kCase != Last::kNotReset) *ended = 0;
}

template <Last kCase>
void sum() {
  const Words in = counted(7 * kThreads);
  Words sums(14), ended(1);
  for (int launches = 0; launches < 2; ++launches) {
    uint32_t total = 0;
    launch("sum", sum_kernel<kCase>, {7, kThreads}, nullptr, &total, sums.data(), ended.data(),
           in.data());
    expect(total == 7 * kThreads * (7 * kThreads - 1) / 2, "sum");
  }
}

// Blocks in a chain: each waits for the one before or, wrongly, for the one behind.
enum class Chain { kRight, kBackwards };

template <Chain kCase>
LOWBIT_KERNEL(1)
chain_kernel(uint32_t* tickets, uint32_t* flags, uint32_t* out) {
  // The order in which blocks start is their order in the chain.
  const uint32_t place = atomic_add(tickets, 1);
  if (kCase == Chain::kRight && place > 0) wait_at_least(flags + place - 1, 1);
  if (kCase == Chain::kBackwards && place + 1 < grid_size()) wait_at_least(flags + place + 1, 1);
  out[place] = place == 0 ? 1 : out[place - 1] + place;
  store_release(flags + place, 1);
}

template <Chain kCase>
void chain() {
  Words tickets(1), flags(9), out(9);
  launch("chain", chain_kernel<kCase>, {9, 1}, nullptr, tickets.data(), flags.data(), out.data());
  expect(out[8] == 37, "chain");
}

LOWBIT_KERNEL(32) written_constant_kernel(uint32_t* words) {
  words[lane_index()] = 1;
  sync_warp();
  if (load_constant(words + (lane_index() + 1) % 32) != 1) words[0] = 7;
}

void written_constant() {
  Words words(32);
  launch("written_constant", written_constant_kernel, {1, 32}, nullptr, words.data());
  expect(words[0] == 1, "written_constant");
}

// ---- mbarriers and the copy engine ----

enum class Bulk {
  kRight,
  kNoWait,
  kTooFewBytes,
  kInitUnordered,
  kNoFence,
  kFenceWithoutBarrier,
  kEndsInFlight
};

// In by the copy engine, doubled by the threads, out by the copy engine.
template <Bulk kCase>
LOWBIT_KERNEL(kThreads)
bulk_kernel(uint32_t* out, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 128);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t t = thread_index();
  if (t == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
  if (kCase != Bulk::kInitUnordered) sync_block();
  if (t == 0) {
    arrive_mbarrier_expecting(come, kCase == Bulk::kTooFewBytes ? 1008 : 1024);
    bulk_copy_to_shared(words, in, 1024, come);
  }
  if (kCase != Bulk::kNoWait) wait_mbarrier(come, 0);
  for (uint32_t i = t; i < 256; i += kThreads) words[i] *= 2;
  if (kCase != Bulk::kNoFence) fence_async_proxy();
  if (kCase != Bulk::kFenceWithoutBarrier) sync_block();
  if (t == 0) {
    bulk_copy_to_global(out, words, 1024);
    commit_bulk_stores();
    if (kCase != Bulk::kEndsInFlight) wait_bulk_stores<0>();
  }
}

template <Bulk kCase>
void bulk() {
  alignas(16) uint32_t in[256], out[256];
  for (uint32_t i = 0; i < 256; ++i) in[i] = i;
  launch("bulk", bulk_kernel<kCase>, {1, kThreads}, nullptr, +out,
         static_cast<const uint32_t*>(in));
  for (uint32_t i = 0; i < 256; ++i) expect(out[i] == 2 * i, "bulk");
}

// ---- wgmma ----

enum class Product {
  kRight,
  kNoFence,
  kTouched,
  kNoWait,
  kNoProxyFence,
  kDescriptorsDiffer,
  kBeyondTheSwizzle
};

// d[64, 8] = a b with b from 16 rows of K in shared memory and ones in the registers of a.
template <Product kCase>
LOWBIT_KERNEL(128)
product_kernel(float* out) {
  LOWBIT_SHARED_ARRAY(uint16_t, b, 8 * 16, 128);
  const uint32_t t = thread_index();
  // Without swizzle: two columns of 8 rows by 16 bytes. Row n of b holds n + 1.
  b[t] = float_to_float16(static_cast<float>(t % 64 / 8 + 1));
  if (kCase != Product::kNoProxyFence) fence_async_proxy();
  sync_block();
  const uint32_t one = floats_to_float16x2(1.0f, 1.0f);
  const uint32_t ones[4] = {one, one, one, one};
  const uint32_t stride = kCase == Product::kDescriptorsDiffer && t == 9 ? 256 : 128;
  float d[4] = {};
  if (kCase != Product::kNoFence) fence_wgmma();
  const uint64_t columns = kCase == Product::kBeyondTheSwizzle
                               ? matrix_descriptor(b + 8, 16, 256, Swizzle::k32Bytes)
                               : matrix_descriptor(b, 128, stride, Swizzle::kNone);
  wgmma_float16<8>(d, ones, columns, false);
  if (kCase == Product::kTouched) d[1] = 0;
  commit_wgmma();
  if (kCase != Product::kNoWait) wait_wgmma<0>();
  for (uint32_t i = 0; i < 4; ++i) out[t * 4 + i] = d[i];
}

template <Product kCase>
void product() {
  std::vector<float> out(512);
  launch("product", product_kernel<kCase>, {1, 128}, nullptr, out.data());
  for (uint32_t i = 0; i < 512; ++i) {
    const uint32_t column = i / 4 % 4 * 2 + i % 2;
    expect(out[i] == 16.0f * static_cast<float>(column + 1), "product");
  }
}

// ---- clusters ----

enum class Remote { kRight, kNoSync, kNoLastSync };

// Every block reads the words of the next one of its cluster.
template <Remote kCase>
LOWBIT_KERNEL(32)
remote_kernel(uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 32, 4);
  const uint32_t lane = lane_index(), rank = cluster_rank();
  words[lane] = block_index() * 32 + lane;
  if (kCase != Remote::kNoSync) sync_cluster();
  out[block_index() * 32 + lane] =
      load_remote(map_shared_address(words + lane, (rank + 1) % cluster_size()));
  if (kCase != Remote::kNoLastSync) sync_cluster();
}

template <Remote kCase>
void remote() {
  Words out(8 * 32);
  launch("remote", remote_kernel<kCase>, {8, 32, 0, 4}, nullptr, out.data());
  for (uint32_t i = 0; i < out.size(); ++i) {
    const uint32_t b = i / 32, next = b / 4 * 4 + (b + 1) % 4;
    expect(out[i] == next * 32 + i % 32, "remote");
  }
}

// ---- graphs ----

LOWBIT_KERNEL(1) add_kernel(uint32_t* word, uint32_t value) { *word += value; }

// A replay repeats launches with the arguments of their capture.
void graph() {
  uint32_t word = 0, value = 3;
  model::begin_capture();
  launch("add", add_kernel, {1, 1}, nullptr, &word, value);
  model::end_capture();
  expect(word == 0, "a captured launch does not run");
  value = 100;
  model::replay();
  model::replay();
  expect(word == 6, "graph");
}

void launch_limits(const LaunchShape& shape) {
  uint32_t word = 0;
  launch("add", add_kernel, shape, nullptr, &word, 1u);
}

const std::map<std::string, void (*)()> kCases = {
    {"reverse", reverse<Barrier::kRight>},
    {"reverse, barrier missing", reverse<Barrier::kMissing>},
    {"reverse, counts differ", reverse<Barrier::kCountsDiffer>},
    {"reverse, one thread away", reverse<Barrier::kOneThreadAway>},
    {"reverse, half warps", reverse<Barrier::kHalfWarps>},
    {"hand_off", hand_off<Handoff::kRight>},
    {"hand_off, nobody reads", hand_off<Handoff::kNobodyReads>},
    {"warp", warp<Warp::kRight>},
    {"warp, lanes diverge", warp<Warp::kLanesDiverge>},
    {"warp, outside the mask", warp<Warp::kOutsideTheMask>},
    {"warp, no sync", warp<Warp::kNoSync>},
    {"shared", shared<Shared::kRight>},
    {"shared, overrun", shared<Shared::kOverrun>},
    {"shared, overrun of dynamic", shared<Shared::kOverrunOfDynamic>},
    {"shared, too little", shared<Shared::kTooLittle>},
    {"shared, misaligned", shared<Shared::kMisaligned>},
    {"copy", copy<Copy::kRight>},
    {"copy, no wait", copy<Copy::kNoWait>},
    {"copy, wait too short", copy<Copy::kWaitTooShort>},
    {"copy, no barrier", copy<Copy::kNoBarrier>},
    {"copy, misaligned", copy<Copy::kMisaligned>},
    {"copy, past the end", copy<Copy::kPastTheEnd>},
    {"copy, ends in flight", copy<Copy::kEndsInFlight>},
    {"sum", sum<Last::kRight>},
    {"sum, not reset", sum<Last::kNotReset>},
    {"sum, relaxed", sum<Last::kRelaxed>},
    {"sum, no barrier", sum<Last::kNoBarrier>},
    {"chain", chain<Chain::kRight>},
    {"chain, backwards", chain<Chain::kBackwards>},
    {"written constant", written_constant},
    {"bulk", bulk<Bulk::kRight>},
    {"bulk, no wait", bulk<Bulk::kNoWait>},
    {"bulk, too few bytes", bulk<Bulk::kTooFewBytes>},
    {"bulk, init unordered", bulk<Bulk::kInitUnordered>},
    {"bulk, no fence", bulk<Bulk::kNoFence>},
    {"bulk, fence without barrier", bulk<Bulk::kFenceWithoutBarrier>},
    {"bulk, ends in flight", bulk<Bulk::kEndsInFlight>},
    {"product", product<Product::kRight>},
    {"product, no fence", product<Product::kNoFence>},
    {"product, touched", product<Product::kTouched>},
    {"product, no wait", product<Product::kNoWait>},
    {"product, no proxy fence", product<Product::kNoProxyFence>},
    {"product, descriptors differ", product<Product::kDescriptorsDiffer>},
    {"product, beyond the swizzle", product<Product::kBeyondTheSwizzle>},
    {"remote", remote<Remote::kRight>},
    {"remote, no sync", remote<Remote::kNoSync>},
    {"remote, no last sync", remote<Remote::kNoLastSync>},
    {"graph", graph},
    {"launch, threads", [] { launch_limits({1, 1025}); }},
    {"launch, blocks", [] { launch_limits({0, 1}); }},
    {"launch, shared memory", [] { launch_limits({1, 1, 228 << 10}); }},
    {"launch, cluster", [] { launch_limits({3, 1, 0, 2}); }},
};

}  // namespace
}  // namespace lowbit::cuda

int main(int argc, char** argv) {
  using namespace lowbit::cuda;
  const auto chosen = kCases.find(argc > 1 ? argv[1] : "");
  if (argc != 4 || chosen == kCases.end()) {
    for (const auto& [name, run] : kCases) std::printf("%s\n", name.c_str());
    return 2;
  }
  const uint64_t first = std::strtoull(argv[2], nullptr, 10);
  for (uint64_t seed = first; seed < first + std::strtoull(argv[3], nullptr, 10); ++seed) {
    model::settings.seed = seed;
    try {
      chosen->second();
    } catch (const std::exception& error) {
      std::printf("%s\n", error.what());
      return 1;
    }
  }
  std::printf("ok\n");
}
