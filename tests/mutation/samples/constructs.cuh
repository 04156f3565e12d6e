// Every construct that has mutants, and much that must have none: sync_block(); if (a < b) return;
#pragma once
#define NOT_HERE(a, b) \
  if ((a) < (b)) sync_block();

namespace sample {

constexpr int table(int n) { return n < 3 ? 1 : 2; }

// here
template <int kN, typename T = Box<(3 < 4)>>
struct Ring {
  int stage = 0, parity = 0;
  const char* words = "if (a < b) sync_block();";

  LOWBIT_DEVICE explicit Ring(int n) : stage(n < 1 ? 1 : n) { sync_warp(); }

  LOWBIT_DEVICE void advance() {
    if (++stage <= kN) return;
    stage = 0;
    parity ^= 1;
  }
};

template <typename Tile>
LOWBIT_KERNEL(Tile::kThreads)
order_kernel(const Params p, uint32_t* flag) {
  static_assert(Tile::kThreads < 1024);
  constexpr bool kWide = Tile::kThreads > 512;
  if constexpr (kWide && Tile::kN > 3) fence_wgmma();
  init_mbarrier(p.full, 1);
  arrive_mbarrier_expecting(p.full, 16 * Tile::kN);
  wait_mbarrier(p.full, p.parity);
  arrive_mbarrier(p.full);
  fence_mbarrier_init();
  commit_async_copies();
  wait_async_copies<Tile::kStages - 2>();
  wait_wgmma<1>();
  shrink_registers<40>();
  grow_registers<Tile::kN * 8>();
  sync_named_barrier(1, 64);
  store_release(flag, 7);
  wait_at_least(flag, 8);
  const uint32_t before = add_acquire_release(flag, 1);
  const uint32_t seen = load_acquire(flag + before);
  uint8_t bytes[4][2] = {};
  std::memset(bytes, 0, seen);
  for (uint32_t i = 0; i < min(p.n, 4u); ++i) use(bytes[i]);
}

inline int predicates(int a, int b, bool whole) {
  while (a < b && (whole || b != 3)) ++a;
  if (!whole) return a == b ? 1 : 2;
  const bool inside = a >= 0;
  return call(inside, a > 1);
}

}  // namespace sample
