// Single instructions of the host model, for ctypes: memory and registers in, the same out.
#include <cstdio>
#include <exception>

#include "cuda/device.cuh"
#include "cuda/launch.cuh"

namespace lowbit::cuda::oracle {

enum class Element : int { kFloat16, kBFloat16, kFloat8E4M3, kInt8 };

// Registers of all threads of a warp or warpgroup, thread after thread.
struct Registers {
  const uint32_t* a;
  const uint32_t* b;
  uint32_t* d;
};

LOWBIT_KERNEL(32) multiply_warp(Element type, Registers registers) {
  const uint32_t lane = lane_index();
  uint32_t a[4], b[2];
  float sums[4];
  int32_t integer_sums[4];
  std::memcpy(a, registers.a + 4 * lane, sizeof(a));
  std::memcpy(b, registers.b + 2 * lane, sizeof(b));
  std::memcpy(sums, registers.d + 4 * lane, sizeof(sums));
  std::memcpy(integer_sums, registers.d + 4 * lane, sizeof(sums));
  if (type == Element::kFloat16) mma_float16(sums, a, b);
  if (type == Element::kBFloat16) mma_bfloat16(sums, a, b);
  if (type == Element::kFloat8E4M3) mma_float8_e4m3(sums, a, b);
  if (type == Element::kInt8) mma_int8(integer_sums, a, b);
  const void* result = type == Element::kInt8 ? static_cast<void*>(integer_sums) : sums;
  std::memcpy(registers.d + 4 * lane, result, sizeof(sums));
}

inline constexpr uint32_t kMatrixBytes = 4096;

// `rows`: where in the memory the row lies that each lane names.
LOWBIT_KERNEL(32)
load_matrices(int count, int transposed, const char* memory, const uint32_t* rows, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(char, shared, kMatrixBytes, 16);
  const uint32_t lane = lane_index();
  if (lane == 0) std::memcpy(shared, memory, kMatrixBytes);
  sync_warp();
  const char* row = shared + rows[lane];
  uint32_t two[2], four[4];
  if (count == 2) {
    transposed ? load_matrix_x2_transposed(two, row) : load_matrix_x2(two, row);
    std::memcpy(out + 2 * lane, two, sizeof(two));
  } else {
    transposed ? load_matrix_x4_transposed(four, row) : load_matrix_x4(four, row);
    std::memcpy(out + 4 * lane, four, sizeof(four));
  }
}

LOWBIT_KERNEL(32)
store_matrices(int transposed, char* memory, const uint32_t* rows, const uint32_t* in) {
  LOWBIT_SHARED_ARRAY(char, shared, kMatrixBytes, 16);
  const uint32_t lane = lane_index();
  if (lane == 0) std::memcpy(shared, memory, kMatrixBytes);
  sync_warp();
  uint32_t four[4];
  std::memcpy(four, in + 4 * lane, sizeof(four));
  char* row = shared + rows[lane];
  transposed ? store_matrix_x4_transposed(row, four) : store_matrix_x4(row, four);
  sync_warp();
  if (lane == 0) std::memcpy(memory, shared, kMatrixBytes);
}

inline constexpr uint32_t kOperandBytes = 64 << 10;

// What a wgmma is told; descriptors count from the start of the memory.
struct Product {
  int type, n, a_in_registers, transpose_a, transpose_b;
  uint64_t a, b;
};

template <uint32_t kN, bool kTransposeA, bool kTransposeB, typename A>
void multiply_floats(float (&d)[kN / 2], Element type, const A& a, uint64_t b) {
  constexpr bool kShared = std::is_same_v<A, uint64_t>;
  if (type == Element::kFloat8E4M3) return wgmma_float8_e4m3<kN>(d, a, b, true);
  if constexpr (kShared) {
    type == Element::kFloat16 ? wgmma_float16<kN, kTransposeA, kTransposeB>(d, a, b, true)
                              : wgmma_bfloat16<kN, kTransposeA, kTransposeB>(d, a, b, true);
  } else {
    type == Element::kFloat16 ? wgmma_float16<kN, kTransposeB>(d, a, b, true)
                              : wgmma_bfloat16<kN, kTransposeB>(d, a, b, true);
  }
}

template <uint32_t kN, typename A>
void multiply(const Product& p, const A& a, uint64_t b, uint32_t* out) {
  const auto type = static_cast<Element>(p.type);
  const auto run = [&](auto& d, const auto& product) {
    std::memcpy(d, out, sizeof(d));
    fence_wgmma();
    product();
    commit_wgmma();
    wait_wgmma<0>();
    std::memcpy(out, d, sizeof(d));
  };
  float d[kN / 2];
  int32_t integers[kN / 2];
  if (type == Element::kInt8) {
    run(integers, [&] { wgmma_int8<kN>(integers, a, b, true); });
  } else if (p.transpose_a) {
    run(d, [&] {
      p.transpose_b ? multiply_floats<kN, true, true>(d, type, a, b)
                    : multiply_floats<kN, true, false>(d, type, a, b);
    });
  } else {
    run(d, [&] {
      p.transpose_b ? multiply_floats<kN, false, true>(d, type, a, b)
                    : multiply_floats<kN, false, false>(d, type, a, b);
    });
  }
}

template <uint32_t kN>
LOWBIT_KERNEL(128)
multiply_warpgroup(Product p, const char* memory, Registers registers) {
  SharedMemoryCutter cutter;
  char* shared = cutter.take<char>(kOperandBytes, 1024);
  const uint32_t t = thread_index();
  if (t == 0) std::memcpy(shared, memory, kOperandBytes);
  fence_async_proxy();
  sync_block();
  const uint64_t start = shared_address(shared) >> 4;
  uint32_t* d = registers.d + kN / 2 * t;
  if (p.a_in_registers) {
    uint32_t a[4];
    std::memcpy(a, registers.a + 4 * t, sizeof(a));
    multiply<kN>(p, a, start + p.b, d);
  } else {
    multiply<kN>(p, start + p.a, start + p.b, d);
  }
}

LOWBIT_KERNEL(32)
encode(uint32_t leading, uint32_t stride, uint32_t swizzle, uint32_t advance, uint32_t* start,
       uint64_t* descriptor) {
  LOWBIT_SHARED_ARRAY(char, shared, 16, 1024);
  *start = shared_address(shared);
  *descriptor = advance_descriptor(
      matrix_descriptor(shared, leading, stride, static_cast<Swizzle>(swizzle)), advance);
}

LOWBIT_KERNEL(32)
load_box(const TensorMap map, int32_t column, int32_t row, uint32_t bytes, char* out) {
  LOWBIT_SHARED_ARRAY(char, box, 32768, 1024);
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 1, 8);
  if (thread_index() == 0) {
    init_mbarrier(full, 1);
    fence_mbarrier_init();
    arrive_mbarrier_expecting(full, bytes);
    tensor_copy_to_shared(box, &map, column, row, full);
    wait_mbarrier(full, 0);
    std::memcpy(out, box, bytes);
  }
}

// 0, or 1 with the reason on stderr.
template <typename... Args>
int run(void (*kernel)(Args...), const LaunchShape& shape, const Args&... args) {
  try {
    launch("oracle", kernel, shape, nullptr, args...);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace lowbit::cuda::oracle

extern "C" {

using namespace lowbit::cuda;
using namespace lowbit::cuda::oracle;

int oracle_mma(int type, const uint32_t* a, const uint32_t* b, uint32_t* d) {
  return run(multiply_warp, {1, 32}, static_cast<Element>(type), Registers{a, b, d});
}

int oracle_load_matrices(int count, int transposed, const char* memory, const uint32_t* rows,
                         uint32_t* out) {
  return run(load_matrices, {1, 32}, count, transposed, memory, rows, out);
}

int oracle_store_matrices(int transposed, char* memory, const uint32_t* rows, const uint32_t* in) {
  return run(store_matrices, {1, 32}, transposed, memory, rows, in);
}

int oracle_wgmma(int type, int n, int a_in_registers, int transpose_a, int transpose_b,
                 const char* memory, uint64_t a, uint64_t b, const uint32_t* a_registers,
                 uint32_t* d) {
  const Product p{type, n, a_in_registers, transpose_a, transpose_b, a, b};
  const Registers registers{a_registers, nullptr, d};
  const auto kernel = n == 8    ? multiply_warpgroup<8>
                      : n == 16 ? multiply_warpgroup<16>
                      : n == 64 ? multiply_warpgroup<64>
                                : multiply_warpgroup<256>;
  return run(kernel, {1, 128, kOperandBytes}, p, memory, registers);
}

int oracle_descriptor(uint32_t leading, uint32_t stride, uint32_t swizzle, uint32_t advance,
                      uint32_t* start, uint64_t* descriptor) {
  return run(encode, {1, 1}, leading, stride, swizzle, advance, start, descriptor);
}

// A box of `box_rows` rows of a matrix of so many bytes and rows.
int oracle_load_box(char* matrix, uint32_t element, uint32_t columns, uint32_t rows,
                    uint32_t box_columns, uint32_t box_rows, int column, int row, uint32_t swizzle,
                    char* out) {
  TensorMapSpec spec{};
  spec.address = matrix, spec.element_bytes = element, spec.rank = 2;
  spec.sizes[0] = columns, spec.sizes[1] = rows;
  spec.strides[0] = element, spec.strides[1] = uint64_t{columns} * element;
  spec.box[0] = box_columns, spec.box[1] = box_rows;
  spec.swizzle = static_cast<Swizzle>(swizzle);
  return run(load_box, {1, 1}, make_tensor_map(spec), static_cast<int32_t>(column),
             static_cast<int32_t>(row), box_columns * box_rows * element, out);
}
}
