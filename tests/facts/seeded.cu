// Kernels with one mistake each, for the tests of the checks, and one that has none.
#include <cuda_fp16.h>

#include <cstdint>

// Copies 16 bytes of each thread in a loop.
__global__ void __launch_bounds__(256) keeps_all(const uint4* in, uint4* out, int count) {
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += 256) out[i] = in[i];
}

__global__ void __launch_bounds__(256) narrow_stores(const uint32_t* in, uint32_t* out, int count) {
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += 256) out[i] = in[i];
}

__device__ __forceinline__ void sum_96_at_once(const float* in, float* out, int count) {
  float sums[96] = {};
  for (int i = 0; i < count; ++i) {
#pragma unroll
    for (int j = 0; j < 96; ++j) sums[j] = fmaf(in[i * 96 + j], sums[(j + 1) % 96], in[i]);
  }
#pragma unroll
  for (int j = 0; j < 96; ++j) out[threadIdx.x * 96 + j] = sums[j];
}

// 96 sums at once do not fit into the 32 registers that two blocks of 1024 threads leave.
__global__ void __launch_bounds__(1024, 2) spills(const float* in, float* out, int count) {
  sum_96_at_once(in, out, count);
}

__global__ void __launch_bounds__(256) many_registers(const float* in, float* out, int count) {
  sum_96_at_once(in, out, count);
}

// An index that is not known when compiling keeps the array out of registers.
__global__ void __launch_bounds__(256) stack_frame(const int* in, uint4* out) {
  uint32_t bins[64] = {};
  for (int i = 0; i < 256; ++i) ++bins[in[i] & 63];
  out[threadIdx.x] = make_uint4(bins[in[0] & 63], bins[1], bins[2], bins[3]);
}

__global__ void __launch_bounds__(256) divides(const float4* in, float4* out) {
  const float4 v = in[threadIdx.x];
  out[threadIdx.x] = make_float4(v.x / v.y, v.y, v.z, v.w);
}

__global__ void __launch_bounds__(256) static_shared(const uint4* in, uint4* out, int shift) {
  __shared__ uint4 tile[2048];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[(threadIdx.x + shift) & 2047];
}

__device__ __forceinline__ void mma(float (&d)[4], uint4 a, uint2 b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}

// Tiles around a loop over K, which has two MMA, a wait inside and a branch; one MMA follows it.
template <int kWork>
__global__ void __launch_bounds__(256)
    multiplies(const uint4* a, volatile const uint32_t* ready, float4* out, int tiles, int k) {
#pragma unroll 1
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    float d[4] = {};
#pragma unroll 1
    for (int i = 0; i < k; ++i) {
      while (ready[i] == 0) {
      }
      uint4 x = a[i * 32 + threadIdx.x];
#pragma unroll
      for (int j = 0; j < kWork; ++j) x.x = __funnelshift_l(x.x, x.y, x.z) ^ (x.w + j);
      mma(d, x, make_uint2(x.y, x.z));
      mma(d, x, make_uint2(x.x, x.w));
    }
    mma(d, make_uint4(1, 2, 3, 4), make_uint2(5, 6));
    out[tile * 256 + threadIdx.x] = make_float4(d[0], d[1], d[2], d[3]);
  }
}
template __global__ void multiplies<1>(const uint4*, volatile const uint32_t*, float4*, int, int);
template __global__ void multiplies<40>(const uint4*, volatile const uint32_t*, float4*, int, int);

// Empty where the architecture lacks what it needs.
__global__ void stub(float* out) {
#if __CUDA_ARCH__ >= 900
  out[threadIdx.x] = 1.0f;
#endif
}
