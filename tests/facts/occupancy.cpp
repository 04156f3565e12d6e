// NVIDIA's occupancy calculation for the cases on standard input, one a line: capability, threads,
// blocks and bytes of shared memory of a multiprocessor, then registers, threads and shared memory
// of a block. Answers with the blocks and the bits of what limits them.
#include <cuda_runtime_api.h>

#include <cuda_occupancy.h>

#include <climits>
#include <cstdio>

namespace {

cudaOccDeviceProp device(int capability, int threads, int shared) {
  cudaOccDeviceProp p;
  p.computeMajor = capability / 10;
  p.computeMinor = capability % 10;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsPerMultiprocessor = threads;
  p.regsPerBlock = 65536;
  p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.sharedMemPerBlock = 48 << 10;
  p.sharedMemPerMultiprocessor = shared;
  p.numSms = 1;
  p.reservedSharedMemPerBlock = 1024;
  p.sharedMemPerBlockOptin = shared - 1024;
  return p;
}

cudaOccFuncAttributes function(int registers, const cudaOccDeviceProp& p) {
  cudaOccFuncAttributes f;
  f.maxThreadsPerBlock = INT_MAX;
  f.numRegs = registers;
  f.sharedSizeBytes = 0;
  f.partitionedGCConfig = PARTITIONED_GC_OFF;
  f.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  f.maxDynamicSharedSizeBytes = p.sharedMemPerBlockOptin;
  f.numBlockBarriers = 1;
  return f;
}

}  // namespace

int main() {
  int capability, sm_threads, sm_shared, registers, threads, shared;
  while (std::scanf("%d %d %d %d %d %d", &capability, &sm_threads, &sm_shared, &registers, &threads,
                    &shared) == 6) {
    const cudaOccDeviceProp p = device(capability, sm_threads, sm_shared);
    const cudaOccFuncAttributes f = function(registers, p);
    const cudaOccDeviceState state;
    cudaOccResult result;
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &p, &f, &state, threads, shared);
    if (error != CUDA_OCC_SUCCESS) return 1;
    std::printf("%d %u\n", result.activeBlocksPerMultiprocessor, result.limitingFactors);
  }
}
