// Cases of the host model: wgmma.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

enum class Product {
  kRight,
  kNoFence,
  kTouched,
  kNoWait,
  kNoProxyFence,
  kDescriptorsDiffer,
  kBeyondTheSwizzle,
  kBeyondTheDescriptor
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
  if (kCase == Product::kBeyondTheDescriptor) {
    matrix_descriptor(b + (1 << 17), 128, 128, Swizzle::kNone);
  }
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

const Cases kProductCases = {
    {"product", product<Product::kRight>},
    {"product, no fence", product<Product::kNoFence>},
    {"product, touched", product<Product::kTouched>},
    {"product, no wait", product<Product::kNoWait>},
    {"product, no proxy fence", product<Product::kNoProxyFence>},
    {"product, descriptors differ", product<Product::kDescriptorsDiffer>},
    {"product, beyond the swizzle", product<Product::kBeyondTheSwizzle>},
    {"product, beyond the descriptor", product<Product::kBeyondTheDescriptor>},
};

}  // namespace
}  // namespace lowbit::cuda
