// One kernel for each wrapper of csrc/cuda/ptx and conversions.cuh, of its name, that does nothing
// else: what nvcc makes of it is recorded in golden.txt.
#include "cuda/device.cuh"

namespace golden {

namespace ptx = lowbit::cuda;

#define WRAPPER(name, parameters, ...) \
  __global__ void __launch_bounds__(128, 1) name parameters { __VA_ARGS__; }

// ---- ../conversions.cuh ----
WRAPPER(mul_rn, (float* out, float a, float b), *out = ptx::mul_rn(a, b))
WRAPPER(add_rn, (float* out, float a, float b), *out = ptx::add_rn(a, b))
WRAPPER(sub_rn, (float* out, float a, float b), *out = ptx::sub_rn(a, b))
WRAPPER(fma_rn, (float* out, float a, float b, float c), *out = ptx::fma_rn(a, b, c))
WRAPPER(bits_to_float, (float* out, uint32_t bits), *out = ptx::bits_to_float(bits))
WRAPPER(float_to_bits, (uint32_t* out, float value), *out = ptx::float_to_bits(value))
WRAPPER(float16_to_float, (float* out, uint16_t bits), *out = ptx::float16_to_float(bits))
WRAPPER(bfloat16_to_float, (float* out, uint16_t bits), *out = ptx::bfloat16_to_float(bits))
WRAPPER(floats_to_float16x2, (uint32_t* out, float low, float high),
        *out = ptx::floats_to_float16x2(low, high))
WRAPPER(floats_to_bfloat16x2, (uint32_t* out, float low, float high),
        *out = ptx::floats_to_bfloat16x2(low, high))
WRAPPER(small_integer_to_float, (float* out, uint32_t value),
        *out = ptx::small_integer_to_float(value))
WRAPPER(float8_e4m3_to_float, (float* out, uint8_t bits), *out = ptx::float8_e4m3_to_float(bits))
WRAPPER(float8_e8m0_to_float, (float* out, uint8_t bits), *out = ptx::float8_e8m0_to_float(bits))

// ---- async_copy.cuh ----
WRAPPER(copy_async_16, (void* s, const void* g, uint32_t n), ptx::copy_async_16(s, g, n))
WRAPPER(copy_async_4, (void* s, const void* g, uint32_t n), ptx::copy_async<4>(s, g, n))
WRAPPER(copy_async_8, (void* s, const void* g, uint32_t n), ptx::copy_async<8>(s, g, n))
WRAPPER(commit_async_copies, (), ptx::commit_async_copies())
WRAPPER(wait_async_copies, (), ptx::wait_async_copies<3>())

// ---- barrier.cuh ----
WRAPPER(sync_block, (), ptx::sync_block())
WRAPPER(sync_named_barrier, (uint32_t id, uint32_t n), ptx::sync_named_barrier(id, n))
WRAPPER(arrive_named_barrier, (uint32_t id, uint32_t n), ptx::arrive_named_barrier(id, n))
WRAPPER(sync_warp, (uint32_t mask), ptx::sync_warp(mask))

// ---- bits.cuh ----
WRAPPER(lop3, (uint32_t* out, uint32_t a, uint32_t b, uint32_t c), *out = ptx::lop3<0xd8>(a, b, c))
WRAPPER(permute_bytes, (uint32_t* out, uint32_t a, uint32_t b, uint32_t selector),
        *out = ptx::permute_bytes(a, b, selector))

// ---- bulk_copy.cuh ----
WRAPPER(bulk_copy_to_shared, (void* s, const void* g, uint32_t n, ptx::Mbarrier* barrier),
        ptx::bulk_copy_to_shared(s, g, n, barrier))
WRAPPER(bulk_copy_to_global, (void* g, const void* s, uint32_t n),
        ptx::bulk_copy_to_global(g, s, n))
WRAPPER(commit_bulk_stores, (), ptx::commit_bulk_stores())
WRAPPER(wait_bulk_stores, (), ptx::wait_bulk_stores<2>())

// ---- cluster.cuh ----
WRAPPER(cluster_rank, (uint32_t* out), *out = ptx::cluster_rank())
WRAPPER(cluster_size, (uint32_t* out), *out = ptx::cluster_size())
WRAPPER(sync_cluster, (), ptx::sync_cluster())
WRAPPER(map_shared_address, (uint32_t* out, const void* s, uint32_t rank),
        *out = ptx::map_shared_address(s, rank))
WRAPPER(load_remote, (uint32_t* out, uint32_t address), *out = ptx::load_remote(address))
WRAPPER(store_remote, (uint32_t address, uint32_t value), ptx::store_remote(address, value))

// ---- matrix_load.cuh ----
#define LOAD(name, count)                                                                   \
  WRAPPER(name, (uint32_t* out, const void* s), uint32_t words[count]; ptx::name(words, s); \
          for (int i = 0; i < count; ++i) out[i] = words[i])
LOAD(load_matrix_x2, 2)
LOAD(load_matrix_x2_transposed, 2)
LOAD(load_matrix_x4, 4)
LOAD(load_matrix_x4_transposed, 4)
#define STORE(name)                                               \
  WRAPPER(name, (void* s, const uint32_t* in),                    \
          const uint32_t words[4] = {in[0], in[1], in[2], in[3]}; \
          ptx::name(s, words))
STORE(store_matrix_x4)
STORE(store_matrix_x4_transposed)

// ---- mbarrier.cuh ----
WRAPPER(init_mbarrier, (ptx::Mbarrier * barrier, uint32_t n), ptx::init_mbarrier(barrier, n))
WRAPPER(invalidate_mbarrier, (ptx::Mbarrier * barrier), ptx::invalidate_mbarrier(barrier))
WRAPPER(arrive_mbarrier, (ptx::Mbarrier * barrier), ptx::arrive_mbarrier(barrier))
WRAPPER(arrive_mbarrier_expecting, (ptx::Mbarrier * barrier, uint32_t n),
        ptx::arrive_mbarrier_expecting(barrier, n))
WRAPPER(arrive_remote_mbarrier, (uint32_t address), ptx::arrive_remote_mbarrier(address))
WRAPPER(test_mbarrier, (uint32_t* out, ptx::Mbarrier* barrier, uint32_t parity),
        *out = ptx::test_mbarrier(barrier, parity))
WRAPPER(wait_mbarrier, (ptx::Mbarrier * barrier, uint32_t parity),
        ptx::wait_mbarrier(barrier, parity))

// ---- memory_order.cuh ----
WRAPPER(load_constant, (uint32_t* out, const uint32_t* g), *out = ptx::load_constant(g))
WRAPPER(load_constant_uint8, (uint32_t* out, const uint8_t* g), *out = ptx::load_constant(g))
WRAPPER(load_constant_uint16, (uint32_t* out, const uint16_t* g), *out = ptx::load_constant(g))
WRAPPER(load_constant_float, (float* out, const float* g), *out = ptx::load_constant(g))
LOAD(load_8_bytes, 2)
LOAD(load_16_bytes, 4)
WRAPPER(store_8_bytes, (void* g, const uint32_t* in), const uint32_t words[2] = {in[0], in[1]};
        ptx::store_8_bytes(g, words))
STORE(store_16_bytes)
WRAPPER(load_acquire, (uint32_t* out, const uint32_t* g), *out = ptx::load_acquire(g))
WRAPPER(store_release, (uint32_t* g, uint32_t value), ptx::store_release(g, value))
WRAPPER(add_acquire_release, (uint32_t* out, uint32_t* g, uint32_t value),
        *out = ptx::add_acquire_release(g, value))
WRAPPER(atomic_add, (uint32_t* out, uint32_t* p, uint32_t value), *out = ptx::atomic_add(p, value))
WRAPPER(atomic_max, (uint32_t* out, uint32_t* p, uint32_t value), *out = ptx::atomic_max(p, value))
WRAPPER(compare_exchange, (uint32_t* out, uint32_t* p, uint32_t expected, uint32_t value),
        *out = ptx::compare_exchange(p, expected, value))
WRAPPER(wait_at_least, (const uint32_t* flag, uint32_t value), ptx::wait_at_least(flag, value))

// ---- mma.cuh ----
#define MMA(name, T)                                                                      \
  WRAPPER(name, (T * out, const uint32_t* in_a, const uint32_t* in_b), T d[4];            \
          uint32_t a[4], b[2]; for (int i = 0; i < 4; ++i) d[i] = out[i], a[i] = in_a[i]; \
          for (int i = 0; i < 2; ++i) b[i] = in_b[i]; ptx::name(d, a, b);                 \
          for (int i = 0; i < 4; ++i) out[i] = d[i])
MMA(mma_float16, float)
MMA(mma_bfloat16, float)
MMA(mma_int8, int32_t)
MMA(mma_float8_e4m3, float)

// ---- packed_halves.cuh ----
WRAPPER(fma_float16x2, (uint32_t* out, uint32_t a, uint32_t b, uint32_t c),
        *out = ptx::fma_float16x2(a, b, c))
WRAPPER(fma_bfloat16x2, (uint32_t* out, uint32_t a, uint32_t b, uint32_t c),
        *out = ptx::fma_bfloat16x2(a, b, c))

// ---- position.cuh ----
WRAPPER(thread_index, (uint32_t* out), *out = ptx::thread_index())
WRAPPER(lane_index, (uint32_t* out), *out = ptx::lane_index())
WRAPPER(warp_index, (uint32_t* out), *out = ptx::warp_index())
WRAPPER(block_index, (uint32_t* out), *out = ptx::block_index())
WRAPPER(block_index_y, (uint32_t* out), *out = ptx::block_index_y())
WRAPPER(block_index_z, (uint32_t* out), *out = ptx::block_index_z())
WRAPPER(block_size, (uint32_t* out), *out = ptx::block_size())
WRAPPER(grid_size, (uint32_t* out), *out = ptx::grid_size())

// ---- proxy_fence.cuh, register_budget.cuh, shared_memory.cuh, swizzle.cuh ----
WRAPPER(fence_async_proxy, (), ptx::fence_async_proxy())
WRAPPER(fence_mbarrier_init, (), ptx::fence_mbarrier_init())
WRAPPER(grow_registers, (), ptx::grow_registers<232>())
WRAPPER(shrink_registers, (), ptx::shrink_registers<40>())
WRAPPER(shared_address, (uint32_t* out, const void* s), *out = ptx::shared_address(s))
WRAPPER(take, (uint32_t* out), ptx::SharedMemoryCutter cutter; cutter.take<char>(3);
        *out = *cutter.take<uint32_t>(8, 64))
WRAPPER(swizzled, (uint32_t* out, uint32_t offset),
        *out = ptx::swizzled<ptx::Swizzle::k64Bytes>(offset))
WRAPPER(swizzle_bytes, (uint32_t* out, uint32_t swizzle),
        *out = ptx::swizzle_bytes(static_cast<ptx::Swizzle>(swizzle)))

// ---- tensor_copy.cuh ----
WRAPPER(prefetch_tensor_map, (const ptx::TensorMap* map), ptx::prefetch_tensor_map(map))
WRAPPER(tensor_copy_to_shared,
        (void* s, const ptx::TensorMap* map, int column, int row, ptx::Mbarrier* barrier),
        ptx::tensor_copy_to_shared(s, map, column, row, barrier))
WRAPPER(tensor_copy_to_shared_3d,
        (void* s, const ptx::TensorMap* map, int column, int row, int plane,
         ptx::Mbarrier* barrier),
        ptx::tensor_copy_to_shared(s, map, column, row, plane, barrier))
WRAPPER(tensor_copy_to_blocks,
        (void* s, const ptx::TensorMap* map, int column, int row, ptx::Mbarrier* barrier,
         uint16_t blocks),
        ptx::tensor_copy_to_blocks(s, map, column, row, barrier, blocks))
WRAPPER(tensor_copy_to_global, (const ptx::TensorMap* map, const void* s, int column, int row),
        ptx::tensor_copy_to_global(map, s, column, row))

// ---- warp.cuh ----
#define SHUFFLE(name)                                                        \
  WRAPPER(name, (uint32_t* out, uint32_t value, uint32_t by, uint32_t mask), \
          *out = ptx::name(value, by, 8, mask))
SHUFFLE(shuffle)
SHUFFLE(shuffle_xor)
SHUFFLE(shuffle_up)
SHUFFLE(shuffle_down)
WRAPPER(ballot, (uint32_t* out, bool c, uint32_t mask), *out = ptx::ballot(c, mask))
WRAPPER(any_lane, (uint32_t* out, bool c, uint32_t mask), *out = ptx::any_lane(c, mask))
WRAPPER(all_lanes, (uint32_t* out, bool c, uint32_t mask), *out = ptx::all_lanes(c, mask))
WRAPPER(reduce_add, (uint32_t* out, uint32_t value, uint32_t mask),
        *out = ptx::reduce_add(value, mask))
WRAPPER(elect_lane, (uint32_t* out), *out = ptx::elect_lane())

// ---- wgmma.cuh ----
WRAPPER(matrix_descriptor, (uint64_t* out, const void* s, uint32_t leading, uint32_t stride),
        *out = ptx::matrix_descriptor(s, leading, stride, ptx::Swizzle::k128Bytes))
WRAPPER(advance_descriptor, (uint64_t* out, uint64_t descriptor, uint32_t bytes),
        *out = ptx::advance_descriptor(descriptor, bytes))
WRAPPER(fence_wgmma, (), ptx::fence_wgmma())
WRAPPER(commit_wgmma, (), ptx::commit_wgmma())
WRAPPER(wait_wgmma, (), ptx::wait_wgmma<1>())
WRAPPER(wait_wgmma_for, (float* out), float d[2]; d[0] = out[0]; d[1] = out[1]; ptx::wait_wgmma(d);
        out[0] = d[0]; out[1] = d[1])

// All accumulators come from out and go back there, so that each must keep its place.
#define WGMMA(name, n, T, ...)                                                                     \
  WRAPPER(name##_n##n, (T * out, uint64_t a, uint64_t b, bool adds), T d[n / 2];                   \
          _Pragma("unroll") for (int i = 0; i < n / 2; ++i) d[i] = out[i];                         \
          ptx::name<n __VA_OPT__(, ) __VA_ARGS__>(d, a, b, adds);                                  \
          _Pragma("unroll") for (int i = 0; i < n / 2; ++i) out[i] = d[i])                         \
  WRAPPER(name##_registers_n##n, (T * out, const uint32_t* in, uint64_t b, bool adds), T d[n / 2]; \
          const uint32_t a[4] = {in[0], in[1], in[2], in[3]};                                      \
          _Pragma("unroll") for (int i = 0; i < n / 2; ++i) d[i] = out[i];                         \
          ptx::name<n>(d, a, b, adds);                                                             \
          _Pragma("unroll") for (int i = 0; i < n / 2; ++i) out[i] = d[i])
#define WGMMA_OF_EACH_N(name, T) \
  WGMMA(name, 8, T)              \
  WGMMA(name, 16, T)             \
  WGMMA(name, 32, T)             \
  WGMMA(name, 64, T)             \
  WGMMA(name, 128, T)            \
  WGMMA(name, 256, T)
WGMMA_OF_EACH_N(wgmma_float16, float)
WGMMA_OF_EACH_N(wgmma_bfloat16, float)
WGMMA_OF_EACH_N(wgmma_float8_e4m3, float)
WGMMA_OF_EACH_N(wgmma_int8, int32_t)
#define TRANSPOSED(name, variant, a_major, b_major)                                         \
  WRAPPER(name##variant, (float* out, uint64_t a, uint64_t b, bool adds), float d[4] = {};  \
          ptx::name<8, a_major, b_major>(d, a, b, adds); *out = d[0])                       \
  WRAPPER(name##variant##_registers, (float* out, uint32_t a, uint64_t b, bool adds),       \
          float d[4] = {};                                                                  \
          const uint32_t words[4] = {a, a, a, a}; ptx::name<8, b_major>(d, words, b, adds); \
          *out = d[0])
TRANSPOSED(wgmma_float16, _transpose_a, true, false)
TRANSPOSED(wgmma_float16, _transpose_b, false, true)
TRANSPOSED(wgmma_bfloat16, _transpose_a, true, false)
TRANSPOSED(wgmma_bfloat16, _transpose_b, false, true)

}  // namespace golden
