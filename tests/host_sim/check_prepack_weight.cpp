// Random codes to fragments and back through the kernels of prepack_weight and unpack_weight on the
// host model, without torch. Arguments: first seed, number of seeds.
#include "codes_case.h"

#include "cuda/launch.cuh"
#include "cuda/prepack_weight.cuh"

#ifndef LOWBIT_CHECK_BITS
#define LOWBIT_CHECK_BITS 1, 2, 3, 4, 5, 6, 7, 8
#endif

using namespace lowbit;
using namespace lowbit::weight_case;

namespace {

using Kernel = void (*)(RelayoutParams, cuda::RelayoutConfig);

constexpr uint32_t kUntouched = 0x55555555;

// Words that end where their memory does and start up to 12 bytes behind an alignment of 16.
struct Words {
  int64_t count, shift;
  std::unique_ptr<uint32_t[]> memory;

  Words(int64_t words, Random& random)
      : count(words), shift(random.below(2) ? 0 : random.between(1, 3)) {
    memory.reset(new uint32_t[static_cast<size_t>(shift + count)]);
    std::fill(memory.get(), memory.get() + shift + count, kUntouched);
  }

  uint32_t* data() { return memory.get() + shift; }
  int32_t* integers() { return reinterpret_cast<int32_t*>(data()); }
  uintptr_t address() { return reinterpret_cast<uintptr_t>(data()); }

  void compare(const char* what, const WeightFormat& f, const std::vector<uint32_t>& want) {
    for (int64_t i = -shift; i < count; ++i) {
      const uint32_t wanted = i < 0 ? kUntouched : want[static_cast<size_t>(i)];
      if (data()[i] == wanted) continue;
      wrong_value("%s, %d bits, n %ld, k %ld, block_k %ld, word %ld: got %x, expected %x", what,
                  f.bits, f.n, f.k, f.block_k, i, data()[i], wanted);
    }
  }
};

int64_t random_block_k(int64_t k, Random& random) {
  switch (random.below(5)) {
    case 0:
      return random.between(1, 40);
    case 1:
      return random.between(1, k + 100);
    case 2:
      return k;
    default:
      return 32 * random.between(1, 4);
  }
}

WeightFormat random_format(int bits, Random& random) {
  WeightFormat f{};
  f.bits = bits;
  f.n = random.between(1, random.below(2) ? 20 : 150);
  f.k = random.below(2) ? 32 * random.between(1, 12) : random.between(1, 400);
  f.block_n = 1;
  f.block_k = random_block_k(f.k, random);
  return f;
}

void check_case(int bits, Kernel prepack, Kernel unpack, Random& random) {
  const WeightFormat f = random_format(bits, random);
  WeightFormat packed = f;
  packed.layout = WeightLayout::kFragments;
  const int64_t row = row_words(f.k, bits), stride = row + random.below(5);

  Words given((f.n - 1) * stride + row, random);
  for (int64_t i = 0; i < given.count; ++i) given.data()[i] = random.engine();
  WeightView view{};
  view.format = f;
  view.qweight = given.integers();
  view.qweight_stride = stride;
  const std::vector<uint32_t> fragments = expected_fragments(view), rows = expected_rows(view);

  Words made(static_cast<int64_t>(fragments.size()), random);
  const int64_t panel = panel_words(packed);
  const auto c = cuda::prepack_weight_config({packed, made.address(), given.address(), stride});
  cuda::launch("prepack_weight", prepack, {c.blocks, c.threads}, nullptr,
               RelayoutParams{packed, view.qweight, stride, made.integers(), panel}, c);
  made.compare("prepack", f, fragments);

  Words back(static_cast<int64_t>(rows.size()), random);
  const auto d = cuda::unpack_weight_config({packed, made.address(), back.address(), row});
  cuda::launch("unpack_weight", unpack, {d.blocks, d.threads}, nullptr,
               RelayoutParams{packed, made.integers(), panel, back.integers(), row}, d);
  back.compare("unpack", f, rows);
}

template <int... kBits>
void check_all(Random& random) {
  using namespace cuda;
  (check_case(kBits, prepack_weight_kernel<kBits>, unpack_weight_kernel<kBits>, random), ...);
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    cuda::model::settings.seed = seed;
    check_all<LOWBIT_CHECK_BITS>(random);
  });
}
