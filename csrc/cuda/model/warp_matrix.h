// ldmatrix, stmatrix and mma.sync on the model. Fragments as in the PTX ISA, "Matrix fragments for
// mma.m16n8k16" and ".m16n8k32".
#pragma once

#include "barriers.h"
#include "number_formats.h"

namespace lowbit::cuda::model {

// Lane l gives the address of row l % 8 of matrix l / 8; lane 4r + c receives elements 2c and 2c +
// 1 of row r of each matrix, transposed if asked for.
template <int kMatrices>
void load_matrices(uint32_t (&out)[kMatrices], const void* row, bool transposed,
                   const char* operation) {
  struct Argument {
    uint16_t row[8];
    uint32_t out[kMatrices];
  } mine{};
  require_whole_warp(operation);
  if (self().lane < 8 * kMatrices) {
    {
      const Unwatched unwatched;
      shared_address(row);
      require_aligned(row, 16, operation);
    }
    std::memcpy(mine.row, row, 16);
  }
  const Unwatched unwatched;
  maybe_switch();
  meet_warp(kWholeWarp, operation, &mine, [transposed](void* const* lanes) {
    const auto element = [&](int matrix, uint32_t r, uint32_t c) -> uint32_t {
      if (transposed) std::swap(r, c);
      return static_cast<Argument*>(lanes[matrix * 8 + r])->row[c];
    };
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (int m = 0; m < kMatrices; ++m) {
        const uint32_t r = lane / 4, c = lane % 4 * 2;
        static_cast<Argument*>(lanes[lane])->out[m] = element(m, r, c) | element(m, r, c + 1) << 16;
      }
    }
  });
  std::memcpy(out, mine.out, sizeof(mine.out));
}

// The same in the other direction.
template <int kMatrices>
void store_matrices(void* row, const uint32_t (&in)[kMatrices], bool transposed,
                    const char* operation) {
  struct Argument {
    uint32_t in[kMatrices];
    uint16_t row[8];
  } mine{};
  {
    const Unwatched unwatched;
    maybe_switch();
    require_whole_warp(operation);
    if (self().lane < 8 * kMatrices) {
      shared_address(row);
      require_aligned(row, 16, operation);
    }
    std::memcpy(mine.in, in, sizeof(mine.in));
    meet_warp(kWholeWarp, operation, &mine, [transposed](void* const* lanes) {
      for (uint32_t lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < kMatrices; ++m) {
          for (uint32_t half = 0; half < 2; ++half) {
            uint32_t r = lane / 4, c = lane % 4 * 2 + half;
            const uint32_t pair = static_cast<Argument*>(lanes[lane])->in[m];
            if (transposed) std::swap(r, c);
            static_cast<Argument*>(lanes[m * 8 + r])->row[c] =
                static_cast<uint16_t>(pair >> 16 * half);
          }
        }
      }
    });
  }
  if (self().lane < 8 * kMatrices) std::memcpy(row, mine.row, 16);
}

// d[16, 8] = a[16, 32 bytes] b[32 bytes, 8] + c, in place of c.
template <Operand kType, typename T>
void multiply_warp(T (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                   const char* operation) {
  struct Argument {
    const uint32_t* a;
    const uint32_t* b;
    T* d;
  };
  const Unwatched unwatched;
  maybe_switch();
  require_whole_warp(operation);
  Argument mine{a, b, d};
  meet_warp(kWholeWarp, operation, &mine, [](void* const* lanes) {
    constexpr uint32_t kBytes = operand_bytes(kType);
    constexpr uint32_t kDepth = 32 / kBytes;
    double rows[16][kDepth], columns[8][kDepth];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const auto& argument = *static_cast<Argument*>(lanes[lane]);
      const uint32_t group = lane / 4, first = lane % 4 * 4 / kBytes;
      const auto read = [](const uint32_t& word, uint32_t i) {
        return operand_value(kType, reinterpret_cast<const char*>(&word) + i * kBytes);
      };
      for (uint32_t i = 0; i < 4 / kBytes; ++i) {
        for (uint32_t word = 0; word < 4; ++word) {
          rows[group + word % 2 * 8][first + word / 2 * kDepth / 2 + i] = read(argument.a[word], i);
        }
        for (uint32_t word = 0; word < 2; ++word) {
          columns[group][first + word * kDepth / 2 + i] = read(argument.b[word], i);
        }
      }
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
      T* out = static_cast<Argument*>(lanes[lane])->d;
      for (uint32_t j = 0; j < 4; ++j) {
        double sum = 0;
        for (uint32_t k = 0; k < kDepth; ++k) {
          sum += rows[lane / 4 + j / 2 * 8][k] * columns[lane % 4 * 2 + j % 2][k];
        }
        out[j] = accumulate(out[j], sum);
      }
    }
  });
}

}  // namespace lowbit::cuda::model
