// Where a tensor entry runs its kernel: device and stream, on the GPU or on the host model.
#pragma once

#include "../torch_checks.h"

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

inline constexpr DeviceType kDeviceType = DeviceType::CPU;

struct CurrentStream {
  explicit CurrentStream(Device) {}
  void* stream() const { return nullptr; }
};

#else

inline constexpr DeviceType kDeviceType = DeviceType::CUDA;

// Makes the device current for its lifetime.
class CurrentStream {
 public:
  explicit CurrentStream(Device device)
      : guard_(device.index()), stream_(current_cuda_stream(device.index())) {}
  void* stream() const { return stream_; }

 private:
  DeviceGuard guard_;
  void* stream_;
};

#endif

}  // namespace lowbit::cuda
