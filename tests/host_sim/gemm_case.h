// Random cases of tiled_gemm for the host model, without torch: every buffer is exactly as long as
// its shape and strides say, so AddressSanitizer sees each access beyond it. Inputs are small
// integers, whose sums fp16 holds exactly: results are compared bit by bit.
#pragma once

#include "gemm_operands.cuh"
#include "random_case.h"

namespace lowbit::cuda::examples {

// fp16 numbers of a matrix and the memory they are in.
struct Matrix {
  int64_t rows, columns, stride;
  std::unique_ptr<uint16_t[], Free> memory;

  Matrix(int64_t r, int64_t c, int64_t s) : rows(r), columns(c), stride(s) {
    memory.reset(static_cast<uint16_t*>(std::aligned_alloc(16, static_cast<size_t>(count()) * 2)));
  }
  int64_t count() const { return (rows - 1) * stride + columns; }

  // -2 to 2; what lies between the rows is infinite, and so is every sum that it gets into.
  void fill(CaseRandom& random) {
    static constexpr uint16_t kBits[] = {0xc000, 0xbc00, 0x0000, 0x3c00, 0x4000};
    for (int64_t i = 0; i < count(); ++i) {
      memory[i] = i % stride < columns ? kBits[random.below(5)] : 0x7c00;
    }
  }
};

struct GemmCase {
  static constexpr uint16_t kUntouched = 0x7e5a;

  CaseRandom random;
  TiledGemmParams p{};
  TiledGemmProblem problem{};
  std::unique_ptr<Matrix> a, b;
  std::unique_ptr<uint16_t[]> c;
  int64_t c_offset = 0, c_count = 0;

  // For the two tiles of a kernel: extents of C up to a little more than two large ones, and steps
  // of K that go round the ring of stages up to three times; now and then nine times, so that an
  // arrival too many or too few in each round makes one round of seven or eight.
  template <typename Large, typename Small>
  GemmCase(uint64_t seed, Large, Small) : random(seed) {
    problem.m = extent(Large::kTileM, Small::kTileM);
    problem.n = extent(Large::kTileN, Small::kTileN);
    const int64_t rounds = random.below(16) == 0 ? 9 : random.below(2) ? 3 : 1;
    problem.k = 8 * random.between(1, rounds * Large::kStages * Large::kTileK / 8);
    problem.multiprocessors = random.below(2) ? 1 : 64;  // for either tile
    a = operand(problem.m);
    b = operand(problem.n);
    problem.c_stride = problem.n + random.below(4);
    c_offset = random.below(2);
    c_count = (problem.m - 1) * problem.c_stride + problem.n;
    c.reset(new uint16_t[static_cast<size_t>(c_offset + c_count)]);
    problem.c_address = reinterpret_cast<uintptr_t>(c.get() + c_offset);
    p = {a->memory.get(),
         b->memory.get(),
         c.get() + c_offset,
         a->stride,
         b->stride,
         problem.c_stride,
         static_cast<uint32_t>(problem.m),
         static_cast<uint32_t>(problem.n),
         static_cast<uint32_t>(problem.k)};
  }

  int64_t extent(int64_t large, int64_t small) {
    return random.below(4) ? random.between(1, small) : random.between(1, 2 * large + 9);
  }

  std::unique_ptr<Matrix> operand(int64_t rows) {
    return std::make_unique<Matrix>(rows, problem.k, problem.k + 8 * random.below(3));
  }

  // New numbers on the same buffers: what a launch left behind must not help or harm the next.
  void refill() {
    a->fill(random);
    b->fill(random);
    for (int64_t i = 0; i < c_offset + c_count; ++i) c[i] = kUntouched;
  }

  uint16_t expected(int64_t row, int64_t column) const {
    float sum = 0;
    for (int64_t k = 0; k < problem.k; ++k) {
      sum += float16_to_float(a->memory[row * a->stride + k]) *
             float16_to_float(b->memory[column * b->stride + k]);
    }
    return static_cast<uint16_t>(floats_to_float16x2(sum, 0.0f));
  }

  void compare(int launch) const {
    for (int64_t i = -c_offset; i < c_count; ++i) {
      const int64_t row = i < 0 ? 0 : i / problem.c_stride;
      const int64_t column = i < 0 ? problem.n : i % problem.c_stride;
      const uint16_t want = column < problem.n ? expected(row, column) : kUntouched;
      uint16_t got;
      std::memcpy(&got, c.get() + c_offset + i, 2);
      if (got == want) continue;
      std::printf(
          "wrong value: launch %d, m %ld, n %ld, k %ld, row %ld, column %ld: got %x, "
          "expected %x\n",
          launch, problem.m, problem.n, problem.k, row, column, got, want);
      std::exit(1);
    }
  }
};

}  // namespace lowbit::cuda::examples
