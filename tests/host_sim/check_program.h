// What check programs without torch share: random numbers, their seeds, and how they say what went
// wrong.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>

namespace lowbit::check_program {

struct Random {
  std::mt19937_64 engine;
  int64_t below(int64_t end) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(end)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  float real() { return std::uniform_real_distribution<float>(0.5f, 2.0f)(engine); }
};

[[noreturn, gnu::format(printf, 1, 2)]] inline void wrong_value(const char* format, ...) {
  std::printf("wrong value: ");
  std::va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
  std::exit(1);
}

// Runs `check(seed)` for the seeds of the command line: the first, and how many.
template <typename Check>
int check_seeds(int argc, char** argv, const Check& check) {
  const uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const int64_t count = argc > 2 ? std::strtoll(argv[2], nullptr, 10) : 100;
  if (argc > 3 || count < 1) {
    std::printf("usage: %s [first seed] [number of seeds, at least 1]\n", argv[0]);
    return 2;
  }
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(count); ++seed) {
    try {
      check(seed);
    } catch (const std::exception& error) {
      std::printf("seed %lu: %s\n", seed, error.what());
      return 1;
    }
  }
  std::printf("%ld seeds ok\n", count);
  return 0;
}

}  // namespace lowbit::check_program
