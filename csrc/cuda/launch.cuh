// launch(): the one place where kernels start. On the host model it hands them to its scheduler.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "model/graph.h"
#else
#include <cuda_runtime_api.h>

#include <mutex>
#endif

namespace lowbit::cuda {

struct LaunchShape {
  int64_t blocks;
  int64_t threads;           // of a block
  int64_t shared_bytes = 0;  // dynamic, of a block
  int64_t cluster = 1;       // blocks, along x
  int64_t blocks_y = 1;
  int64_t blocks_z = 1;
};

inline void require_launch(bool ok, const char* kernel, const std::string& sentence) {
  if (!ok) throw std::runtime_error(std::string(kernel) + ": " + sentence);
}

inline void require_extent(const char* kernel, const char* what, int64_t value, int64_t most) {
  require_launch(value >= 1 && value <= most, kernel,
                 std::string(what) + " must be 1 to " + std::to_string(most) + ", got " +
                     std::to_string(value));
}

// Limits of every compute capability from 5.0 on, of clusters from 9.0 on (CUDA Programming Guide,
// technical specifications).
inline void check_shape(const char* kernel, const LaunchShape& s, int64_t most_shared_bytes) {
  require_extent(kernel, "blocks", s.blocks, INT32_MAX);
  require_extent(kernel, "blocks along y", s.blocks_y, 65535);
  require_extent(kernel, "blocks along z", s.blocks_z, 65535);
  require_extent(kernel, "threads of a block", s.threads, 1024);
  require_extent(kernel, "blocks of a cluster", s.cluster, 8);
  require_launch(s.blocks % s.cluster == 0, kernel,
                 "blocks must be a multiple of the cluster's " + std::to_string(s.cluster) +
                     ", got " + std::to_string(s.blocks));
  require_launch(s.shared_bytes >= 0 && s.shared_bytes <= most_shared_bytes, kernel,
                 "shared memory of a block must be at most " + std::to_string(most_shared_bytes) +
                     " bytes on this device, got " + std::to_string(s.shared_bytes));
}

#ifdef LOWBIT_HOST_MODEL

// The model has two multiprocessors, so that small problems already make threads loop, and the
// shared memory of sm_90.
inline int64_t multiprocessor_count(int32_t) { return 2; }
inline int64_t max_shared_bytes(int32_t) { return 227 << 10; }
inline int64_t compute_capability(int32_t) { return 90; }

template <typename... Args>
void launch(const char* name, void (*kernel)(Args...), const LaunchShape& shape, void* /*stream*/,
            const Args&... args) {
  check_shape(name, shape, max_shared_bytes(0));
  const auto extent = [](int64_t value) { return static_cast<uint32_t>(value); };
  model::submit({name,
                 {extent(shape.blocks), extent(shape.blocks_y), extent(shape.blocks_z)},
                 {extent(shape.cluster), 1, 1},
                 extent(shape.threads),
                 static_cast<size_t>(shape.shared_bytes),
                 [=] { kernel(args...); }});
}

#else

inline void check_cuda(const char* where, const char* need, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // said here: the next one to ask is not to blame
  require_launch(false, where, std::string(need) + ", got " + cudaGetErrorString(error));
}

inline int64_t device_attribute(cudaDeviceAttr attribute, int32_t device_index) {
  int value = 0;
  check_cuda("cudaDeviceGetAttribute", "the device must be usable",
             cudaDeviceGetAttribute(&value, attribute, device_index));
  return value;
}

inline int64_t multiprocessor_count(int32_t device_index) {
  return device_attribute(cudaDevAttrMultiProcessorCount, device_index);
}

inline int64_t max_shared_bytes(int32_t device_index) {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device_index);
}

// 90 for 9.0.
inline int64_t compute_capability(int32_t device_index) {
  return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor, device_index) +
         device_attribute(cudaDevAttrComputeCapabilityMinor, device_index);
}

inline int32_t current_device(const char* kernel) {
  int device = 0;
  check_cuda(kernel, "a device must be current", cudaGetDevice(&device));
  return device;
}

// Kernels must ask for what exceeds this.
inline constexpr int64_t kSharedBytesWithoutAsking = 48 << 10;

// What is granted to a kernel is only ever raised: another thread may be about to launch it with
// more.
inline void allow_shared_bytes(const char* name, const void* kernel, int64_t bytes) {
  if (bytes <= kSharedBytesWithoutAsking) return;
  static std::mutex granting;
  const std::lock_guard<std::mutex> guard(granting);
  cudaFuncAttributes now{};
  check_cuda(name, "the kernel must be known", cudaFuncGetAttributes(&now, kernel));
  if (now.maxDynamicSharedSizeBytes >= bytes) return;
  check_cuda(name, "shared memory must be granted",
             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
}

// `stream` is a cudaStream_t of the current device. `name` stands in the error message.
template <typename... Args>
void launch(const char* name, void (*kernel)(Args...), const LaunchShape& shape, void* stream,
            const Args&... args) {
  check_shape(name, shape,
              shape.shared_bytes > kSharedBytesWithoutAsking
                  ? max_shared_bytes(current_device(name))
                  : kSharedBytesWithoutAsking);
  allow_shared_bytes(name, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  const auto extent = [](int64_t value) { return static_cast<unsigned>(value); };
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {extent(shape.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = {extent(shape.blocks), extent(shape.blocks_y), extent(shape.blocks_z)};
  config.blockDim = {extent(shape.threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;  // older devices know no such attribute
  check_cuda(name, "the kernel must launch", cudaLaunchKernelEx(&config, kernel, args...));
}

#endif

}  // namespace lowbit::cuda
