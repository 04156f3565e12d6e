// Random cases of the vector_scale kernel on the host model, without torch: buffers are exactly as
// long as the arrays in them, values are compared bit by bit, and each case is launched and
// replayed twice. Arguments: first seed, number of seeds.
#include "random_case.h"

#include "vector_scale.cuh"

using namespace lowbit;
using namespace lowbit::cuda;
using namespace lowbit::cuda::examples;
using enum ElementType;

namespace {

// The product in fp32, rounded to the nearest, ties to even; written without what the kernel uses.
uint32_t expected_bits(ElementType type, uint32_t bits, float s) {
  float value;
  if (type == kFloat16) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    half = static_cast<_Float16>(static_cast<float>(half) * s);
    uint16_t rounded;
    std::memcpy(&rounded, &half, 2);
    return rounded;
  }
  const uint32_t word = type == kFloat32 ? bits : bits << 16;
  std::memcpy(&value, &word, 4);
  value *= s;
  uint32_t product;
  std::memcpy(&product, &value, 4);
  if (type == kFloat32) return product;
  const uint32_t rest = product & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (product & 0x10000));
  return (product >> 16) + up;
}

bool is_nan(ElementType type, uint32_t bits) {
  const uint32_t infinity = type == kFloat32 ? 0x7f800000 : type == kFloat16 ? 0x7c00 : 0x7f80;
  return (bits & (type == kFloat32 ? 0x7fffffff : 0x7fff)) > infinity;
}

struct Case {
  ElementType type;
  CaseRandom& random;
  int64_t bytes = output_bytes(type);
  int64_t count = random.below(40) ? random.below(600) : random.between(60000, 70000);
  int64_t x_shift = random.below(2) ? 0 : random.below(16 / bytes) * bytes;
  int64_t y_shift = random.below(2) ? x_shift : random.below(16 / bytes) * bytes;
  bool in_place = random.below(4) == 0;
  std::vector<uint32_t> elements = std::vector<uint32_t>(static_cast<size_t>(count));
  std::unique_ptr<uint8_t[], Free> x = buffer(x_shift), y = buffer(y_shift);

  std::unique_ptr<uint8_t[], Free> buffer(int64_t shift) const {
    return std::unique_ptr<uint8_t[], Free>(
        static_cast<uint8_t*>(std::malloc(static_cast<size_t>(shift + count * bytes))));
  }

  uint8_t* out() const { return in_place ? x.get() + x_shift : y.get() + y_shift; }

  void refill() {
    for (int64_t i = 0; i < count; ++i) {
      uint32_t& bits = elements[static_cast<size_t>(i)];
      bits = static_cast<uint32_t>(random.engine());
      if (bytes == 2) bits &= 0xffff;
      std::memcpy(x.get() + x_shift + i * bytes, &bits, static_cast<size_t>(bytes));
    }
  }

  void launch_and_compare(float s) {
    const VectorScaleParams p{x.get() + x_shift, out(), s};
    const VectorScaleConfig c =
        vector_scale_config({count, static_cast<int>(bytes), reinterpret_cast<uintptr_t>(p.x),
                             reinterpret_cast<uintptr_t>(p.y), 1});
    const auto kernel = type == kFloat32   ? vector_scale_kernel<kFloat32>
                        : type == kFloat16 ? vector_scale_kernel<kFloat16>
                                           : vector_scale_kernel<kBFloat16>;
    launch_and_replay([&] { refill(); },
                      [&] {
                        if (count == 0) return;
                        launch("vector_scale", kernel, {c.blocks, kVectorScaleThreads}, nullptr, p,
                               c);
                      },
                      [&](int turn) { compare(turn, s); });
  }

  void compare(int turn, float s) const {
    for (int64_t i = 0; i < count; ++i) {
      uint32_t got = 0;
      std::memcpy(&got, out() + i * bytes, static_cast<size_t>(bytes));
      const uint32_t want = expected_bits(type, elements[static_cast<size_t>(i)], s);
      if (got == want || (is_nan(type, got) && is_nan(type, want))) continue;
      std::printf("wrong value: launch %d, type %d, count %ld, element %ld: got %x, expected %x\n",
                  turn, static_cast<int>(type), count, i, got, want);
      std::exit(1);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    CaseRandom random(seed);
    for (ElementType type : {kFloat32, kFloat16, kBFloat16}) {
      Case example{type, random};
      for (float s : {1.7f, -0.3f}) example.launch_and_compare(s);
    }
  });
}
