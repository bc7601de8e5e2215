// SPDX-License-Identifier: Apache-2.0
#include "her2fast/device_ring.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "core/cuda_library.h"
#include "session/device_place.h"
#include "session/not_finite.h"

namespace her2fast {
namespace {

constexpr std::int32_t kMostInFlight = 16;

void check_device_number(const Her2CudaTable& table, std::int32_t device) {
  std::int32_t count = 0;
  call_cuda("devices", table.count_devices, &count);
  if (device >= 0 && device < count) return;
  throw DeviceError("cuda:" + std::to_string(device) + ": this machine has " +
                    std::to_string(count) + " CUDA devices");
}

}  // namespace

struct DeviceRing::Impl {
  const Her2CudaTable& table;
  std::vector<DeviceModel> models;
  DeviceOptions options;
  std::vector<ModelSlot> slots{};
  std::int32_t parts = 1;  // pieces a batch is computed in
  std::optional<DevicePlan> plan{};
  std::vector<std::unique_ptr<DevicePlace>> places{};
  std::deque<DevicePlace*> flying{};  // in the order they left

  void prepare(const Session& session) {
    const std::vector<ModelSlot>& needed = session.models();
    if (needed.size() != models.size()) {
      throw std::invalid_argument("need the normalization of " +
                                  std::to_string(needed.size()) + " models, got " +
                                  std::to_string(models.size()));
    }
    if (plan && needed == slots) return;
    places.clear();
    slots = needed;
    plan.emplace(slots, parts);
  }

  std::size_t most_places() const {
    return parts > 1 ? 1 : static_cast<std::size_t>(options.in_flight);
  }

  /// A place that no batch is on; there is one, or room for one.
  DevicePlace& free_place() {
    for (const auto& place : places) {
      if (!place->batch) return *place;
    }
    places.push_back(std::make_unique<DevicePlace>(table, options.device, *plan));
    return *places.back();
  }

  /// Queues all that a batch needs. @returns false where memory did not suffice
  bool queue(DevicePlace& place, const Batch& batch, const DeviceCompute& compute) {
    const auto model = static_cast<std::size_t>(batch.model);
    const ModelSlot& slot = slots[model];
    const std::int32_t rows = DevicePlan::rows(slot, parts);
    place.batch = batch;
    for (std::int32_t part = 0; part < parts; ++part) {
      const std::int32_t first = part * rows;
      const std::int32_t n = std::min(rows, slot.batch - first);
      if (n <= 0 || first >= batch.valid) break;
      if (!queue_part(place, slot, model, part, first, n, compute)) return false;
    }
    return true;
  }

  bool queue_part(DevicePlace& place, const ModelSlot& slot, std::size_t model,
                  std::int32_t part, std::int32_t first, std::int32_t n,
                  const DeviceCompute& compute) {
    const Batch& batch = *place.batch;
    const auto count = static_cast<std::size_t>(n);
    const auto before = static_cast<std::size_t>(first);
    const std::size_t item = std::size_t{3} * static_cast<std::size_t>(slot.height_px) *
                             static_cast<std::size_t>(slot.width_px);
    auto* const rgb = place.on_device<std::uint8_t>(plan->rgb);
    auto* const inputs = place.on_device<float>(plan->inputs);
    auto* const outputs = place.on_device<float>(plan->outputs);
    place.up(rgb, batch.rgb + before * item, count * item);
    call_cuda("normalize_batch", table.normalize_batch,
              static_cast<const std::uint8_t*>(rgb), std::int64_t{n},
              std::int64_t{slot.height_px}, std::int64_t{slot.width_px},
              models[model].mean.data(), models[model].std.data(), std::int32_t{0},
              static_cast<void*>(inputs), place.stream());
    if (!compute({batch.model, n, slot.height_px, slot.width_px, inputs, outputs,
                  slot.outputs, place.stream()})) {
      return false;
    }
    if (!slot.tumor) {
      const auto width = static_cast<std::size_t>(slot.outputs);
      place.down(place.on_host<float>(plan->host_outputs) + before * width, outputs,
                 count * width);
      return true;
    }
    queue_tumor(place, *slot.tumor, part, first, n);
    return true;
  }

  void queue_tumor(DevicePlace& place, const TumorRule& rule, std::int32_t part,
                   std::int32_t first, std::int32_t n) {
    // Padding is not looked at: nobody promised that a model gives numbers there.
    const std::int32_t valid = std::min(n, place.batch->valid - first);
    const auto count = static_cast<std::size_t>(valid);
    const auto before = static_cast<std::size_t>(first);
    const std::size_t words = rule.words(), patches = rule.patches();
    const Her2TumorRule plain{rule.channels, rule.halo_px, rule.tile_px, rule.patch_px,
                              rule.threshold};
    auto* const tissue = place.on_device<std::uint64_t>(plan->tissue);
    auto* const bits = place.on_device<std::uint64_t>(plan->bits);
    auto* const counts = place.on_device<std::uint32_t>(plan->counts);
    auto* const fault = place.on_device<std::int32_t>(plan->fault);
    place.up(tissue, place.batch->tissue + before * words, count * words);
    call_cuda("tumor_bits", table.tumor_bits,
              static_cast<const float*>(place.on_device<float>(plan->outputs)),
              static_cast<const std::uint64_t*>(tissue), std::int64_t{valid}, &plain,
              bits, counts, fault, place.stream());
    place.down(place.on_host<std::uint64_t>(plan->host_bits) + before * words, bits,
               count * words);
    place.down(place.on_host<std::uint32_t>(plan->host_counts) + before * patches, counts,
               count * patches);
    place.down(place.on_host<std::int32_t>(plan->host_faults) + part, fault, 1);
  }

  /// Waits for the oldest batch and gives its results to the session.
  void land(Session& session) {
    DevicePlace& place = *flying.front();
    place.wait();
    const Batch batch = *place.batch;
    const ModelSlot& slot = slots[static_cast<std::size_t>(batch.model)];
    // Its results stay until the place is taken again, which only this thread does.
    flying.pop_front();
    place.batch.reset();
    if (!slot.tumor) {
      const auto size =
          static_cast<std::size_t>(slot.batch) * static_cast<std::size_t>(slot.outputs);
      session.put(batch.id, place.on_host<float>(plan->host_outputs), size);
      return;
    }
    const std::int32_t rows = DevicePlan::rows(slot, parts);
    for (std::int32_t part = 0; part < parts && part * rows < batch.valid; ++part) {
      if (place.on_host<std::int32_t>(plan->host_faults)[part] != 0) {
        throw_not_finite(slot.name);
      }
    }
    session.put_tumor(batch.id, place.on_host<std::uint64_t>(plan->host_bits),
                      place.on_host<std::uint32_t>(plan->host_counts));
  }

  /// Lets a batch leave; where memory does not suffice, what flies lands first and
  /// batches are computed in halves from then on.
  void start(Session& session, const Batch& batch, const DeviceRuntime& runtime) {
    while (!leave(session, batch, runtime.compute)) {
      if (parts > 1) {
        const ModelSlot& slot = slots[static_cast<std::size_t>(batch.model)];
        throw Error(Code::kGpuOom, "cuda:" + std::to_string(options.device) +
                                       ": out of memory with half a batch of " +
                                       std::to_string(slot.batch) +
                                       ": close other programs, compute with one "
                                       "worker (-n 1) or use --device cpu");
      }
      while (!flying.empty()) land(session);
      places.clear();  // waits: what was queued may still read the session's pixels
      if (runtime.free_memory) runtime.free_memory();
      parts = 2;
      plan.emplace(slots, parts);
    }
  }

  bool leave(Session& session, const Batch& batch, const DeviceCompute& compute) {
    if (flying.size() == most_places()) land(session);
    try {
      DevicePlace& place = free_place();
      if (!queue(place, batch, compute)) return false;
      flying.push_back(&place);
      return true;
    } catch (const Error& error) {
      if (error.code() != Code::kGpuOom) throw;
      return false;
    }
  }

  /// After a failure: nothing on the GPU may still read or write what others own.
  void drop() noexcept {
    flying.clear();
    places.clear();
  }
};

DeviceRing::DeviceRing(std::vector<DeviceModel> models, DeviceOptions options) {
  if (options.in_flight < 1 || options.in_flight > kMostInFlight) {
    throw std::invalid_argument(
        "need 1 <= in_flight <= " + std::to_string(kMostInFlight) +
        ", got in_flight=" + std::to_string(options.in_flight));
  }
  const Her2CudaTable& table = cuda_table();
  check_device_number(table, options.device);
  impl_ = std::make_unique<Impl>(Impl{table, std::move(models), options});
}

DeviceRing::~DeviceRing() = default;

bool DeviceRing::halved() const { return impl_->parts > 1; }

std::int64_t DeviceRing::run(Session& session, const DeviceRuntime& runtime, bool wait) {
  Impl& ring = *impl_;
  std::int64_t batches = 0;
  try {
    ring.prepare(session);
    for (;;) {
      // What flies may be what the next batch waits for: only an empty ring may wait.
      const std::optional<Batch> batch = session.next_batch(wait && ring.flying.empty());
      if (batch) {
        ring.start(session, *batch, runtime);
        ++batches;
      } else if (ring.flying.empty()) {
        return batches;
      } else {
        ring.land(session);
      }
    }
  } catch (...) {
    ring.drop();
    throw;
  }
}

namespace {

class PinnedMemory final : public BatchMemory {
 public:
  PinnedMemory() : table_(cuda_table()) {}

  std::uint8_t* allocate(std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    const auto found = kept_.find(bytes);
    if (found != kept_.end()) {
      std::uint8_t* const memory = found->second;
      kept_.erase(found);
      return memory;
    }
    auto block = std::make_unique<HostBlock>(table_, bytes);
    std::uint8_t* const memory = block->data();
    blocks_.emplace(memory, std::move(block));
    return memory;
  }

  void release(std::uint8_t* memory, std::size_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    try {
      kept_.emplace(bytes, memory);
    } catch (...) {
      blocks_.erase(memory);
    }
  }

 private:
  const Her2CudaTable& table_;
  std::mutex mutex_;
  std::map<std::uint8_t*, std::unique_ptr<HostBlock>> blocks_;  // all there are
  std::multimap<std::size_t, std::uint8_t*> kept_;              // those free, by size
};

}  // namespace

std::shared_ptr<BatchMemory> make_pinned_memory() {
  return std::make_shared<PinnedMemory>();
}

}  // namespace her2fast
