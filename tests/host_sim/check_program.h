// What check programs without torch share: random numbers, their seeds, and how they say what went
// wrong.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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

// Whether the text is digits alone, and of no more than 18, which no sum of two overflows.
inline bool read_number(const char* text, uint64_t& number) {
  const size_t digits = std::strspn(text, "0123456789");
  if (digits == 0 || digits > 18 || text[digits] != '\0') return false;
  number = std::strtoull(text, nullptr, 10);
  return true;
}

// Runs `check(seed)` for the seeds of the command line: the first, and how many.
template <typename Check>
int check_seeds(int argc, char** argv, const Check& check) {
  uint64_t first = 1, count = 100;
  const bool read = (argc < 2 || read_number(argv[1], first)) &&
                    (argc < 3 || read_number(argv[2], count)) && argc <= 3;
  if (!read || count == 0) {
    std::printf("usage: %s [first seed] [number of seeds, at least 1]\n", argv[0]);
    return 2;
  }
  for (uint64_t seed = first; seed < first + count; ++seed) {
    try {
      check(seed);
    } catch (const std::exception& error) {
      std::printf("seed %lu: %s\n", seed, error.what());
      return 1;
    }
  }
  std::printf("%lu seeds ok\n", count);
  return 0;
}

}  // namespace lowbit::check_program
