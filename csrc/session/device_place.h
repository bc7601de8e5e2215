// SPDX-License-Identifier: Apache-2.0
/// One batch's place on a GPU: a stream, device memory for (half) a batch of the widest
/// model, and host memory for the results of a whole one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "her2fast/cuda_api.h"
#include "her2fast/session.h"

namespace her2fast {

/// Where arrays lie within one allocation, each aligned to 256 bytes.
struct DevicePlan {
  /// @param parts  pieces that a batch is computed in, 1 or 2
  DevicePlan(const std::vector<ModelSlot>& models, std::int32_t parts);
  static std::int32_t rows(const ModelSlot& slot, std::int32_t parts) {
    return (slot.batch + parts - 1) / parts;
  }

  std::size_t rgb = 0, tissue = 0, inputs = 0, outputs = 0, bits = 0, counts = 0,
              fault = 0, device_bytes = 0;
  // Of a whole batch, on the host.
  std::size_t host_outputs = 0, host_bits = 0, host_counts = 0, host_faults = 0,
              host_bytes = 0;
};

/// Pinned host memory; plain memory where the machine pins no more, whose copies are as
/// right and slower.
class HostBlock {
 public:
  /// @throws Error kGpuLost
  HostBlock(const Her2CudaTable& table, std::size_t bytes);
  ~HostBlock();
  HostBlock(const HostBlock&) = delete;
  HostBlock& operator=(const HostBlock&) = delete;

  std::uint8_t* data() const {
    return plain_ ? plain_.get() : static_cast<std::uint8_t*>(pinned_);
  }

 private:
  const Her2CudaTable& table_;
  void* pinned_ = nullptr;
  std::unique_ptr<std::uint8_t[]> plain_;
};

class DevicePlace {
 public:
  /// @throws Error kGpuOom, kGpuLost
  DevicePlace(const Her2CudaTable& table, std::int32_t device, const DevicePlan& plan);
  /// Waits for its stream.
  ~DevicePlace();
  DevicePlace(const DevicePlace&) = delete;
  DevicePlace& operator=(const DevicePlace&) = delete;

  template <typename T>
  T* on_device(std::size_t at) const {
    return reinterpret_cast<T*>(static_cast<char*>(memory_) + at);
  }
  template <typename T>
  T* on_host(std::size_t at) const {
    return reinterpret_cast<T*>(results_->data() + at);
  }
  void* stream() const { return stream_; }
  /// Queues a copy of `count` elements. @throws Error
  template <typename T>
  void up(T* to, const T* from, std::size_t count) const {
    copy(to, from, count * sizeof(T), HER2_CUDA_TO_DEVICE);
  }
  template <typename T>
  void down(T* to, const T* from, std::size_t count) const {
    copy(to, from, count * sizeof(T), HER2_CUDA_TO_HOST);
  }
  /// Waits for what is queued. @throws Error, DeviceError
  void wait() const;

  /// The batch that is on its way here.
  std::optional<Batch> batch;

 private:
  void copy(void* to, const void* from, std::size_t bytes, std::int32_t kind) const;
  void free() noexcept;

  const Her2CudaTable& table_;
  std::int32_t device_;
  void* stream_ = nullptr;
  void* memory_ = nullptr;
  std::optional<HostBlock> results_;
};

}  // namespace her2fast
