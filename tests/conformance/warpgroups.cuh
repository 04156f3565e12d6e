// wgmma: every type, N, swizzle, order of memory and source of a.
#pragma once

#include "operands.cuh"

namespace lowbit::cuda::conformance {

// Where an operand lies; any operand in memory is one that a descriptor can name.
struct Place {
  Swizzle swizzle;
  uint32_t leading, stride;
};

// K contiguous: groups of eight rows as wide as the swizzle, without it pieces of 8x16 bytes.
LOWBIT_HOST_DEVICE constexpr Place k_major(Swizzle swizzle) {
  return swizzle == Swizzle::kNone ? Place{swizzle, 128, 256}
                                   : Place{swizzle, 16, 8 * swizzle_bytes(swizzle)};
}

// M or N contiguous: 16 k of a swizzle's width, then the next of that width.
LOWBIT_HOST_DEVICE constexpr Place mn_major(Swizzle swizzle) {
  return {swizzle, 16 * swizzle_bytes(swizzle), 8 * swizzle_bytes(swizzle)};
}

// A type, for nvcc takes no objects as arguments of a kernel's template.
template <Swizzle kSwizzleA, Swizzle kSwizzleB, bool kMnMajorA = false, bool kMnMajorB = false,
          bool kRegistersA = false>
struct Form {
  static constexpr bool kTransposeA = kMnMajorA, kTransposeB = kMnMajorB;
  static constexpr bool kAInRegisters = kRegistersA;
  static constexpr Place kA = kMnMajorA ? mn_major(kSwizzleA) : k_major(kSwizzleA);
  static constexpr Place kB = kMnMajorB ? mn_major(kSwizzleB) : k_major(kSwizzleB);

  static std::string name() {
    const auto side = [](const Place& place, bool mn_major) {
      return std::to_string(swizzle_bytes(place.swizzle)) + (mn_major ? "mn" : "k");
    };
    return "_a_" + (kRegistersA ? "registers" : side(kA, kMnMajorA)) + "_b_" + side(kB, kMnMajorB);
  }
};

template <Element kType, uint32_t kN, bool kTransposeA, bool kTransposeB, typename Sum, typename A>
LOWBIT_DEVICE void multiply(Sum (&d)[kN / 2], const A& a, uint64_t b, bool adds) {
  constexpr bool kShared = std::is_same_v<A, uint64_t>;
  if constexpr (kType == Element::kInt8) {
    wgmma_int8<kN>(d, a, b, adds);
  } else if constexpr (kType == Element::kFloat8E4M3) {
    wgmma_float8_e4m3<kN>(d, a, b, adds);
  } else if constexpr (kType == Element::kFloat16 && kShared) {
    wgmma_float16<kN, kTransposeA, kTransposeB>(d, a, b, adds);
  } else if constexpr (kType == Element::kFloat16) {
    wgmma_float16<kN, kTransposeB>(d, a, b, adds);
  } else if constexpr (kShared) {
    wgmma_bfloat16<kN, kTransposeA, kTransposeB>(d, a, b, adds);
  } else {
    wgmma_bfloat16<kN, kTransposeB>(d, a, b, adds);
  }
}

inline constexpr uint32_t kABytes = 64 * 128, kBBytes = 256 * 128;

// in: a, b as they lie in shared memory; fragments of a are read from the same words. d = a b, then
// += a b' with b' 32 bytes behind b; a group of its own each.
template <Element kType, uint32_t kN, typename F>
LOWBIT_KERNEL(128)
warpgroup_products(const uint32_t* in, uint32_t* out) {
  using Sum = std::conditional_t<kType == Element::kInt8, int32_t, float>;
  const uint32_t t = thread_index();
  SharedMemoryCutter cutter;
  auto* words = cutter.take<uint32_t>((kABytes + kBBytes) / 4 + 32, 1024);
  for (uint32_t i = t; i < (kABytes + kBBytes) / 4 + 32; i += 128) words[i] = in[i];
  fence_async_proxy();
  sync_block();
  const uint64_t b =
      matrix_descriptor(words + kABytes / 4, F::kB.leading, F::kB.stride, F::kB.swizzle);
  Sum d[kN / 2];
  for (Sum& sum : d) sum = 77;  // the first product must not see it
  const auto both = [&](const auto& a) {
    fence_wgmma();
    multiply<kType, kN, F::kTransposeA, F::kTransposeB>(d, a, b, false);
    commit_wgmma();
    multiply<kType, kN, F::kTransposeA, F::kTransposeB>(d, a, advance_descriptor(b, 32), true);
    commit_wgmma();
    wait_wgmma<1>();
    wait_wgmma<0>();
  };
  if constexpr (F::kAInRegisters) {
    const uint32_t a[4] = {in[4 * t], in[4 * t + 1], in[4 * t + 2], in[4 * t + 3]};
    both(a);
  } else {
    both(matrix_descriptor(words, F::kA.leading, F::kA.stride, F::kA.swizzle));
  }
  for (uint32_t i = 0; i < kN / 2; ++i) std::memcpy(out + 128 * i + t, &d[i], 4);
}

template <Element kType, uint32_t kN, typename F>
void add_warpgroup_case(Cases& cases, Draw draw = small_integer) {
  std::string name = std::string("wgmma_") + name_of(kType) + "_n" + std::to_string(kN) + F::name();
  Result result = kType == Element::kInt8 ? kSameBits : kSameFloats;
  if (draw == any_fraction) {
    constexpr uint32_t kTerms = 2 * 32 / bytes_of(kType);
    result = near(tolerance(kType, kTerms, kTerms * kProductBound));
    name += "_fractions";
  }
  constexpr size_t kWords = (kABytes + kBBytes) / 4 + 32;
  add_case(cases, name, Needs::kSm90a, result, {1, 128, 4 * kWords},
           random_elements(name, kType, kWords, draw), 64 * kN, warpgroup_products<kType, kN, F>);
}

inline constexpr Swizzle kNone = Swizzle::kNone, k32 = Swizzle::k32Bytes, k64 = Swizzle::k64Bytes,
                         k128 = Swizzle::k128Bytes;

template <Element kType>
void add_forms_of_any_type(Cases& cases) {
  using Plain = Form<k128, k128>;
  using Registers = Form<k128, k128, false, false, true>;
  add_warpgroup_case<kType, 8, Plain>(cases);
  add_warpgroup_case<kType, 16, Form<kNone, kNone>>(cases);
  add_warpgroup_case<kType, 32, Form<k32, k64>>(cases);
  add_warpgroup_case<kType, 64, Form<k64, k32>>(cases);
  add_warpgroup_case<kType, 128, Plain>(cases);
  add_warpgroup_case<kType, 256, Plain>(cases);
  add_warpgroup_case<kType, 8, Form<k128, kNone, false, false, true>>(cases);
  add_warpgroup_case<kType, 16, Registers>(cases);
  add_warpgroup_case<kType, 32, Registers>(cases);
  add_warpgroup_case<kType, 64, Registers>(cases);
  add_warpgroup_case<kType, 128, Registers>(cases);
  add_warpgroup_case<kType, 256, Registers>(cases);
  if constexpr (kType != Element::kInt8) {
    add_warpgroup_case<kType, 64, Plain>(cases, any_fraction);
    add_warpgroup_case<kType, 64, Registers>(cases, any_fraction);
  }
}

// M or N contiguous: elements of two bytes only.
template <Element kType>
void add_transposed_forms(Cases& cases) {
  add_warpgroup_case<kType, 64, Form<k128, k128, true, false>>(cases);
  add_warpgroup_case<kType, 64, Form<k64, k128, true, false>>(cases);
  add_warpgroup_case<kType, 64, Form<k32, k128, true, false>>(cases);
  add_warpgroup_case<kType, 128, Form<k128, k128, false, true>>(cases);
  add_warpgroup_case<kType, 64, Form<k128, k64, false, true>>(cases);
  add_warpgroup_case<kType, 32, Form<k128, k32, false, true>>(cases);
  add_warpgroup_case<kType, 64, Form<k128, k128, true, true>>(cases);
  add_warpgroup_case<kType, 64, Form<k128, k128, false, true, true>>(cases);
}

inline void add_warpgroup_cases(Cases& cases) {
  add_forms_of_any_type<Element::kFloat16>(cases);
  add_forms_of_any_type<Element::kBFloat16>(cases);
  add_forms_of_any_type<Element::kFloat8E4M3>(cases);
  add_forms_of_any_type<Element::kInt8>(cases);
  add_transposed_forms<Element::kFloat16>(cases);
  add_transposed_forms<Element::kBFloat16>(cases);
}

}  // namespace lowbit::cuda::conformance
