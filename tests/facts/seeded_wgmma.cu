// The accumulators are touched while wgmma may still write them: ptxas then lets one wait for the
// other, and says so in a remark.
#include <cstdint>

__global__ void __launch_bounds__(128)
    touches_accumulators(float* out, uint64_t a, uint64_t b, int k) {
  float d[4] = {};
  for (int i = 0; i < k; ++i) {
    asm volatile("wgmma.fence.sync.aligned;");
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, 1, 0;"
        " wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, %4, %5, p, 1, 1, 0, 0;}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "l"(a + i), "l"(b + i));
    d[0] += 1.0f;
    asm volatile("wgmma.commit_group.sync.aligned;");
    asm volatile("wgmma.wait_group.sync.aligned 0;");
  }
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = d[i];
}
