// What a conformance case is: a kernel that reads random words and writes words, the same for each
// run on the host model and on a GPU.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "cuda/launch.cuh"

namespace lowbit::cuda::conformance {

enum class Needs : int { kSm80 = 80, kSm89 = 89, kSm90 = 90, kSm90a = 901 };

// How results are compared. Floats may differ by `tolerance`; NaN equals NaN.
struct Result {
  const char* type;  // "word" or "float"
  double tolerance;
};
inline constexpr Result kSameBits{"word", 0.0};
inline constexpr Result kSameFloats{"float", 0.0};
inline Result near(double tolerance) { return {"float", tolerance}; }

using Words = std::vector<uint32_t>;
using Kernel = void (*)(const uint32_t* in, uint32_t* out);

struct Case {
  std::string name;
  Needs needs;
  Result result;
  Words in;
  size_t out_words;
  std::function<void(const uint32_t* in, uint32_t* out)> start;
};
using Cases = std::vector<Case>;

// splitmix64 (Steele, Lea and Flood 2014), seeded by the name of the case.
class RandomWords {
 public:
  explicit RandomWords(const std::string& name) {
    for (const char letter : name) state_ = state_ * 31 + static_cast<unsigned char>(letter);
  }
  uint32_t word() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>((z ^ z >> 31) >> 16);
  }
  uint32_t below(uint32_t end) { return word() % end; }

 private:
  uint64_t state_ = 0;
};

// Zeros, all ones, extremes, then random words.
inline Words random_words(const std::string& name, size_t count) {
  constexpr uint32_t kEdges[] = {0, 0xffffffffu, 0x80000000u, 0x7fffffffu, 1, 0x00ff00ffu};
  RandomWords random(name);
  Words words(count);
  for (size_t i = 0; i < count; ++i) words[i] = i < 6 ? kEdges[i] : random.word();
  return words;
}

inline void add_case(Cases& cases, const std::string& name, Needs needs, Result result,
                     const LaunchShape& shape, Words in, size_t out_words, Kernel kernel) {
  cases.push_back(
      {name, needs, result, std::move(in), out_words, [=](const uint32_t* words, uint32_t* out) {
         launch(name.c_str(), kernel, shape, nullptr, words, out);
       }});
}

// On random words, with bits to be reproduced.
inline void add_case(Cases& cases, const std::string& name, Needs needs, const LaunchShape& shape,
                     size_t in_words, size_t out_words, Kernel kernel) {
  add_case(cases, name, needs, kSameBits, shape, random_words(name, in_words), out_words, kernel);
}

}  // namespace lowbit::cuda::conformance
