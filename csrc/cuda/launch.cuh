// launch(): the one place where kernels start. On the host model it calls the kernel itself.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "device.cuh"

#ifdef LOWBIT_HOST_MODEL
#include <algorithm>
#include <numeric>
#include <random>
#include <vector>
#else
#include <cuda_runtime_api.h>
#endif

namespace lowbit::cuda {

struct LaunchShape {
  int64_t blocks;
  int64_t threads;  // of a block
};

inline void require_launch(bool ok, const char* kernel, const std::string& sentence) {
  if (!ok) throw std::runtime_error(std::string(kernel) + ": " + sentence);
}

// Limits of every compute capability from 5.0 on (CUDA Programming Guide, technical
// specifications).
inline void check_shape(const char* kernel, LaunchShape shape) {
  require_launch(shape.blocks >= 1 && shape.blocks <= INT32_MAX, kernel,
                 "blocks must be 1 to 2147483647, got " + std::to_string(shape.blocks));
  require_launch(shape.threads >= 1 && shape.threads <= 1024, kernel,
                 "threads of a block must be 1 to 1024, got " + std::to_string(shape.threads));
}

#ifdef LOWBIT_HOST_MODEL

// Blocks and threads run one after the other in an order drawn from the seed. Threads run to their
// end without a pause: that covers kernels whose threads never wait for each other, no others.
namespace host_model {

inline uint64_t seed = 0;

inline std::vector<uint32_t> shuffled(int64_t count, std::mt19937_64& random) {
  std::vector<uint32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Barriers and shuffles would need each thread to be a fiber here, and a scheduler that switches
// between them where they wait.
template <typename Thread>
void run_block(uint32_t block, LaunchShape shape, std::mt19937_64& random, const Thread& run) {
  for (uint32_t thread : shuffled(shape.threads, random)) {
    current_thread = {thread, block, static_cast<uint32_t>(shape.threads),
                      static_cast<uint32_t>(shape.blocks)};
    run();
  }
}

}  // namespace host_model

// The model has two multiprocessors, so that small problems already make threads loop.
inline int64_t multiprocessor_count(int32_t) { return 2; }

template <typename... Args>
void launch(const char* name, void (*kernel)(Args...), LaunchShape shape, void* /*stream*/,
            const Args&... args) {
  check_shape(name, shape);
  std::mt19937_64 random(host_model::seed);
  for (uint32_t block : host_model::shuffled(shape.blocks, random)) {
    host_model::run_block(block, shape, random, [&] { kernel(args...); });
  }
}

#else

inline void check_cuda(const char* where, const char* need, cudaError_t error) {
  require_launch(error == cudaSuccess, where,
                 std::string(need) + ", got " + cudaGetErrorString(error));
}

inline int64_t multiprocessor_count(int32_t device_index) {
  int count = 0;
  check_cuda("cudaDeviceGetAttribute", "the device must be usable",
             cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device_index));
  return count;
}

// `stream` is a cudaStream_t of the current device. `name` stands in the error message.
template <typename... Args>
void launch(const char* name, void (*kernel)(Args...), LaunchShape shape, void* stream,
            const Args&... args) {
  check_shape(name, shape);
  kernel<<<static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads), 0,
           static_cast<cudaStream_t>(stream)>>>(args...);
  check_cuda(name, "the kernel must launch", cudaGetLastError());
}

#endif

}  // namespace lowbit::cuda
