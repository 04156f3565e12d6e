// ldmatrix, stmatrix, mma.sync.
#pragma once

#include <type_traits>

#include "operands.cuh"

namespace lowbit::cuda::conformance {

// Rows in an order that each lane chooses.
template <bool kTransposed>
LOWBIT_KERNEL(32)
matrix_loads(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 16);
  const uint32_t lane = lane_index();
  for (uint32_t i = lane; i < 256; i += 32) words[i] = in[i];
  sync_warp();
  uint32_t four[4], two[2];
  const uint32_t* row = words + 4 * (in[256 + lane] % 64);
  if constexpr (kTransposed) {
    load_matrix_x4_transposed(four, row);
    load_matrix_x2_transposed(two, row);
  } else {
    load_matrix_x4(four, row);
    load_matrix_x2(two, row);
  }
  for (uint32_t i = 0; i < 4; ++i) out[6 * lane + i] = four[i];
  for (uint32_t i = 0; i < 2; ++i) out[6 * lane + 4 + i] = two[i];
}

template <bool kTransposed>
LOWBIT_KERNEL(32)
matrix_stores(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 256, 16);
  const uint32_t lane = lane_index();
  for (uint32_t i = lane; i < 256; i += 32) words[i] = i;
  sync_warp();
  uint32_t values[4];
  for (uint32_t i = 0; i < 4; ++i) values[i] = in[4 * lane + i];
  uint32_t* row = words + 4 * (lane * 13 % 64);
  if constexpr (kTransposed) {
    store_matrix_x4_transposed(row, values);
  } else {
    store_matrix_x4(row, values);
  }
  sync_warp();
  for (uint32_t i = lane; i < 256; i += 32) out[i] = words[i];
}

// in: a and b of each warp, then its accumulators. Two products, one on the result of the other.
template <Element kType>
LOWBIT_KERNEL(128)
warp_products(const uint32_t* in, uint32_t* out) {
  using Sum = std::conditional_t<kType == Element::kInt8, int32_t, float>;
  const uint32_t t = thread_index();
  uint32_t a[4], b[2];
  for (uint32_t i = 0; i < 4; ++i) a[i] = in[6 * t + i];
  for (uint32_t i = 0; i < 2; ++i) b[i] = in[6 * t + 4 + i];
  Sum d[4];
  std::memcpy(d, in + 6 * 128 + 4 * t, sizeof(d));
  for (uint32_t turn = 0; turn < 2; ++turn) {
    if constexpr (kType == Element::kFloat16) mma_float16(d, a, b);
    if constexpr (kType == Element::kBFloat16) mma_bfloat16(d, a, b);
    if constexpr (kType == Element::kFloat8E4M3) mma_float8_e4m3(d, a, b);
    if constexpr (kType == Element::kInt8) mma_int8(d, a, b);
    std::memcpy(out + 512 * turn + 4 * t, d, sizeof(d));
  }
}

// Operands by `draw`, accumulators whole numbers up to 64 in magnitude or any int32.
inline Words product_input(const std::string& name, Element type, Draw draw) {
  Words in = random_elements(name, type, 6 * 128, draw);
  RandomWords random(name + "_sums");
  for (uint32_t i = 0; i < 512; ++i) {
    const float whole = static_cast<float>(random.below(129)) - 64.0f;
    uint32_t bits;
    std::memcpy(&bits, &whole, sizeof(bits));
    in.push_back(type == Element::kInt8 ? random.word() : bits);
  }
  return in;
}

// Infinities, NaN, the smallest subnormal and the largest number of each format, one a warp among
// zeros: no sum is rounded. A product of the largest numbers is no overflow in fp32.
inline Words product_edges(Element type) {
  constexpr uint32_t kEdges[3][4] = {{0x7c00, 0x7e00, 0x0001, 0x7bff},   // float16
                                     {0x7f80, 0x7fc0, 0x0001, 0x5f7f},   // bfloat16, below 2^64
                                     {0x007e, 0x007f, 0x0001, 0x00fe}};  // float8_e4m3
  constexpr uint32_t kOnes[3] = {0x3c003c00, 0x3f803f80, 0x38383838};
  const auto format = static_cast<int>(type);
  Words in(6 * 128 + 4 * 128, 0);
  for (uint32_t warp = 0; warp < 4; ++warp) {
    in[6 * (32 * warp + 7 * warp) + warp] = kEdges[format][warp];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      in[6 * (32 * warp + lane) + 4] = lane % 8 < 4 ? kOnes[format] : kEdges[format][warp];
    }
  }
  return in;
}

template <Element kType>
void add_product_cases(Cases& cases, Needs needs) {
  const std::string name = std::string("mma_") + name_of(kType);
  const auto add = [&](const std::string& kind, Result result, Words in) {
    add_case(cases, name + kind, needs, result, {1, 128}, std::move(in), 1024,
             warp_products<kType>);
  };
  const bool exact = kType == Element::kInt8;
  add("", exact ? kSameBits : kSameFloats, product_input(name, kType, small_integer));
  if (exact) return;
  constexpr uint32_t kDepth = 32 / bytes_of(kType);
  add("_fractions", near(tolerance(kType, 2 * kDepth, 64 + 2 * kDepth * kProductBound)),
      product_input(name + "f", kType, any_fraction));
  add("_edges", kSameFloats, product_edges(kType));
}

inline void add_matrix_cases(Cases& cases) {
  using enum Needs;
  add_case(cases, "load_matrix", kSm80, {1, 32}, 288, 192, matrix_loads<false>);
  add_case(cases, "load_matrix_transposed", kSm80, {1, 32}, 288, 192, matrix_loads<true>);
  add_case(cases, "store_matrix", kSm90, {1, 32}, 128, 256, matrix_stores<false>);
  add_case(cases, "store_matrix_transposed", kSm90, {1, 32}, 128, 256, matrix_stores<true>);
  add_product_cases<Element::kFloat16>(cases, kSm80);
  add_product_cases<Element::kBFloat16>(cases, kSm80);
  add_product_cases<Element::kInt8>(cases, kSm80);
  add_product_cases<Element::kFloat8E4M3>(cases, kSm89);
}

}  // namespace lowbit::cuda::conformance
