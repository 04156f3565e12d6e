// A fault for each tool of compute-sanitizer, chosen by the tool's name.
#include <cstring>

constexpr int kThreads = 64;

__global__ void memcheck(int* out) { out[threadIdx.x + 1] = 1; }  // one behind the end

__global__ void racecheck(int* out) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];  // no barrier before the read
}

__global__ void synccheck(int* out) {
  if (threadIdx.x % 2 == 0) __syncthreads();  // not all threads of the warp come here
  out[threadIdx.x] = 1;
}

int main(int argc, char** argv) {
  int* out = nullptr;
  if (argc != 2 || cudaMalloc(&out, kThreads * sizeof(int)) != cudaSuccess) return 1;
  if (!std::strcmp(argv[1], "memcheck")) memcheck<<<1, kThreads>>>(out);
  if (!std::strcmp(argv[1], "racecheck")) racecheck<<<1, kThreads>>>(out);
  if (!std::strcmp(argv[1], "synccheck")) synccheck<<<1, kThreads>>>(out);
  return cudaDeviceSynchronize() != cudaSuccess;
}
