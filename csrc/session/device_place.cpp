// SPDX-License-Identifier: Apache-2.0
#include "session/device_place.h"

#include <algorithm>

#include "core/cuda_library.h"

namespace her2fast {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t take(std::size_t& used, std::size_t bytes) {
  const std::size_t at = used;
  used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return at;
}

}  // namespace

DevicePlan::DevicePlan(const std::vector<ModelSlot>& models, std::int32_t parts) {
  std::size_t rgb_bytes = 0, outputs_bytes = 0, words = 0, patches = 0;
  std::size_t all_outputs = 0, all_words = 0, all_patches = 0;
  for (const ModelSlot& slot : models) {
    const auto n = static_cast<std::size_t>(rows(slot, parts));
    const auto all = static_cast<std::size_t>(slot.batch);
    const std::size_t item = std::size_t{3} * static_cast<std::size_t>(slot.height_px) *
                             static_cast<std::size_t>(slot.width_px);
    const auto outputs = static_cast<std::size_t>(slot.outputs);
    rgb_bytes = std::max(rgb_bytes, n * item);
    outputs_bytes = std::max(outputs_bytes, n * outputs * sizeof(float));
    if (slot.tumor) {
      words = std::max(words, n * slot.tumor->words());
      patches = std::max(patches, n * slot.tumor->patches());
      all_words = std::max(all_words, all * slot.tumor->words());
      all_patches = std::max(all_patches, all * slot.tumor->patches());
    } else {
      all_outputs = std::max(all_outputs, all * outputs);
    }
  }
  rgb = take(device_bytes, rgb_bytes);
  tissue = take(device_bytes, words * sizeof(std::uint64_t));
  inputs = take(device_bytes, rgb_bytes * sizeof(float));
  outputs = take(device_bytes, outputs_bytes);
  bits = take(device_bytes, words * sizeof(std::uint64_t));
  counts = take(device_bytes, patches * sizeof(std::uint32_t));
  fault = take(device_bytes, sizeof(std::int32_t));
  host_outputs = take(host_bytes, all_outputs * sizeof(float));
  host_bits = take(host_bytes, all_words * sizeof(std::uint64_t));
  host_counts = take(host_bytes, all_patches * sizeof(std::uint32_t));
  host_faults = take(host_bytes, static_cast<std::size_t>(parts) * sizeof(std::int32_t));
}

HostBlock::HostBlock(const Her2CudaTable& table, std::size_t bytes) : table_(table) {
  Her2CudaError error{};
  const std::int32_t status =
      table_.allocate_pinned(std::uint64_t{bytes}, &pinned_, &error);
  if (status == HER2_CUDA_OUT_OF_MEMORY) {
    plain_ = std::make_unique_for_overwrite<std::uint8_t[]>(bytes);
  } else {
    check_cuda(status, error, "allocate_pinned");
  }
}

HostBlock::~HostBlock() {
  // On a GPU that is lost this says so again: there is nothing left to do.
  if (!plain_) static_cast<void>(table_.release_pinned(pinned_, nullptr));
}

DevicePlace::DevicePlace(const Her2CudaTable& table, std::int32_t device,
                         const DevicePlan& plan)
    : table_(table), device_(device) {
  try {
    call_cuda("create_stream", table_.create_stream, device, &stream_);
    call_cuda("allocate", table_.allocate, device, std::uint64_t{plan.device_bytes},
              &memory_);
    results_.emplace(table_, plan.host_bytes);
  } catch (...) {
    free();
    throw;
  }
}

DevicePlace::~DevicePlace() {
  static_cast<void>(table_.synchronize(device_, stream_, nullptr));
  free();
}

void DevicePlace::free() noexcept {
  // As above.
  results_.reset();
  if (memory_ != nullptr) static_cast<void>(table_.release(memory_, nullptr));
  if (stream_ != nullptr) static_cast<void>(table_.destroy_stream(stream_, nullptr));
}

void DevicePlace::wait() const {
  call_cuda("synchronize", table_.synchronize, device_, stream_);
}

void DevicePlace::copy(void* to, const void* from, std::size_t bytes,
                       std::int32_t kind) const {
  call_cuda("copy", table_.copy, to, from, std::uint64_t{bytes}, kind, stream_);
}

}  // namespace her2fast
