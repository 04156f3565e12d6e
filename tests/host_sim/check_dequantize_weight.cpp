// Random cases of the dequantize_weight kernel on the host model, without torch. Arguments: first
// seed, number of seeds.
#include "weight_case.h"

#include "cuda/dequantize_weight.cuh"
#include "cuda/launch.cuh"

#ifndef LOWBIT_CHECK_BITS
#define LOWBIT_CHECK_BITS 1, 2, 3, 4, 5, 6, 7, 8
#endif

using namespace lowbit;
using namespace lowbit::weight_case;

namespace {

using Kernel = void (*)(DequantizeWeightParams, cuda::DequantizeWeightConfig);

void check_case(int bits, ElementType type, Kernel kernel, Random& random) {
  const Weight weight(bits, random);
  const WeightFormat& f = weight.view.format;
  const int bytes = cuda::output_bytes(type);
  const int64_t shift = random.below(2) * bytes;  // an output that does not start on 16 bytes
  std::unique_ptr<uint8_t[]> out(new uint8_t[static_cast<size_t>(f.n * f.k * bytes + shift)]);
  const DequantizeWeightParams p{weight.view, out.get() + shift, type};
  const auto c = cuda::dequantize_weight_config(
      {f, bytes, reinterpret_cast<uintptr_t>(p.out), cuda::multiprocessor_count(0)});
  cuda::launch("dequantize_weight", kernel, {c.blocks, c.threads}, nullptr, p, c);
  compare(weight, type, out.get() + shift);
}

template <int... kBits>
void check_all(Random& random) {
  using cuda::dequantize_weight_kernel;
  (check_case(kBits, kFloat32, dequantize_weight_kernel<kBits, kFloat32>, random), ...);
  (check_case(kBits, kFloat16, dequantize_weight_kernel<kBits, kFloat16>, random), ...);
  (check_case(kBits, kBFloat16, dequantize_weight_kernel<kBits, kBFloat16>, random), ...);
}

// Multiplication in place of division, at the edges where it could go wrong.
void check_divisors(Random& random) {
  const int64_t edges[] = {1,        2, 3, 5, 7, 641, 65535, 65536, 65537, 1 << 30, (1 << 30) + 1,
                           INT32_MAX};
  for (int64_t d : edges) {
    const cuda::Divisor divisor = cuda::make_divisor(d);
    for (int i = 0; i < 64; ++i) {
      const int64_t multiple = random.below(INT32_MAX / d + 1) * d;
      for (int64_t n : {multiple - 1, multiple, multiple + d - 1, int64_t{INT32_MAX}}) {
        if (n < 0 || n > INT32_MAX) continue;
        if (divisor.divide(static_cast<uint32_t>(n)) == n / d) continue;
        wrong_value("%ld / %ld", n, d);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    cuda::model::settings.seed = seed;
    check_divisors(random);
    check_all<LOWBIT_CHECK_BITS>(random);
  });
}
