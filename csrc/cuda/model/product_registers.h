// Registers of wgmma on the model: accumulators and A. PTX asks for wgmma.fence before the first
// product and between other accesses to its registers and a product, but not between products of
// one shape that add to the same accumulators; and for registers left alone until the wait.
// The model sees values: a fence that only reads make necessary is asked for where a product
// overwrites accumulators that came back, as these were waited for to be read.
#pragma once

#include "shared_memory.h"

namespace lowbit::cuda::model {

inline constexpr const char* kFenceAccumulators =
    "fence_wgmma must stand between accesses to accumulators and a wgmma";

// Not inlined: its own frame ends below all variables of its callers.
[[gnu::noinline]] inline void fence_products() {
  const Unwatched unwatched;
  maybe_switch();
  WarpgroupPart& part = self().products;
  part.fenced.take(__builtin_frame_address(0), self().stack_top, self().fiber->stack());
  part.came_back.clear();
  ++part.fences;
}

// The thread's registers `d` become garbage; their values are kept beside. `depth`: K of the
// product, which with their number makes its shape.
template <typename T, int kRegisters>
WarpgroupPart::Accumulator* take_accumulator(T (&d)[kRegisters], uint32_t depth, bool adds) {
  WarpgroupPart& part = self().products;
  auto& accumulator = part.in_flight[d];
  if (accumulator == nullptr) {
    const bool left_alone = adds ? part.fenced.still_holds(d, sizeof(d)) : !part.came_back.count(d);
    require(part.fenced.is_taken() && left_alone, kFenceAccumulators);
    accumulator = std::make_unique<WarpgroupPart::Accumulator>();
    accumulator->values.resize(kRegisters);
    std::memcpy(accumulator->values.data(), d, sizeof(d));
    std::memset(d, kGarbage, sizeof(d));
  } else {
    require(accumulator->depth == depth || accumulator->fences < part.fences,
            "fence_wgmma must stand between products of two shapes on the same accumulators");
  }
  accumulator->last_product = part.issued;
  accumulator->depth = depth;
  accumulator->fences = part.fences;
  return accumulator.get();
}

inline void check_fragment(const void* registers, const WarpgroupPart::Fragment& fragment) {
  uint32_t now[4];
  read_stack(now, registers, 4);  // they may be out of scope
  require(std::memcmp(now, fragment.values, sizeof(now)) == 0,
          "registers of A must be left alone, and in scope, between a wgmma and its wait");
}

// A product reads them at any time until it is done.
inline void take_fragment(const uint32_t* a, uint32_t (&values)[4]) {
  WarpgroupPart& part = self().products;
  const auto found = part.fragments.find(a);
  if (found != part.fragments.end()) check_fragment(a, found->second);
  require(found != part.fragments.end() || part.fenced.still_holds(a, sizeof(values)),
          "fence_wgmma must stand between writes to registers of A and a wgmma");
  std::memcpy(values, a, sizeof(values));
  WarpgroupPart::Fragment& fragment = part.fragments[a];
  std::memcpy(fragment.values, a, sizeof(values));
  fragment.last_product = part.issued;
}

// Gives accumulators back to the thread whose products are among the first `number`.
inline void land_accumulators(uint64_t number) {
  WarpgroupPart& part = self().products;
  for (auto at = part.in_flight.begin(); at != part.in_flight.end();) {
    auto& [registers, accumulator] = *at;
    if (accumulator->last_product > number) {
      ++at;
      continue;
    }
    const std::vector<unsigned char> garbage(accumulator->values.size() * 4, kGarbage);
    require(std::memcmp(registers, garbage.data(), garbage.size()) == 0,
            "accumulators must be left alone between a wgmma and its wait");
    std::memcpy(registers, accumulator->values.data(), garbage.size());
    part.fenced.put(registers, garbage.size());
    part.came_back.insert(registers);
    at = part.in_flight.erase(at);
  }
}

inline void release_fragments(uint64_t number) {
  auto& fragments = self().products.fragments;
  for (const auto& [registers, fragment] : fragments) check_fragment(registers, fragment);
  std::erase_if(fragments, [number](const auto& f) { return f.second.last_product <= number; });
}

}  // namespace lowbit::cuda::model
