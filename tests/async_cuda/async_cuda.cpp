// SPDX-License-Identifier: Apache-2.0
#include "async_cuda.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "her2fast/tumor_bits.h"

namespace her2fast::async_cuda {
namespace {

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  Faults faults;
  Seen seen;
  std::size_t hold = 0;
  bool lost = false;  // the context has ended: nothing runs and every call says so
  std::size_t busy = 0;
};
State state;

/// A thread that does what is queued, in order and never at once.
class Stream {
 public:
  Stream() : thread_([this] { work(); }) {}
  ~Stream() {
    {
      const std::lock_guard lock(state.mutex);
      ended_ = true;
      state.changed.notify_all();
    }
    thread_.join();
  }
  void push(std::function<void()> operation) {
    const std::lock_guard lock(state.mutex);
    if (operations_.empty()) {
      state.seen.busiest = std::max(state.seen.busiest, ++state.busy);
    }
    operations_.push_back(std::move(operation));
    state.changed.notify_all();
  }
  void wait() {
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return operations_.empty(); });
  }

 private:
  void work() {
    std::mt19937 random(static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(this)));
    for (;;) {
      std::function<void()> operation;
      {
        std::unique_lock lock(state.mutex);
        const auto may_go = [&] {
          return !operations_.empty() ? state.busy >= state.hold : ended_;
        };
        if (state.hold == 0) {
          state.changed.wait(lock, may_go);
        } else if (!state.changed.wait_for(lock, std::chrono::seconds(10), may_go)) {
          state.hold = 0;  // nobody came: `busiest` tells
          continue;
        }
        if (operations_.empty()) return;
        state.hold = 0;  // once is enough
        state.changed.notify_all();
        operation = operations_.front();
        if (++state.seen.operations == state.faults.at_operation) state.lost = true;
        if (state.lost) operation = [] {};
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
      operation();
      const std::lock_guard lock(state.mutex);
      operations_.pop_front();
      if (operations_.empty()) --state.busy;
      state.changed.notify_all();
    }
  }

  std::deque<std::function<void()>> operations_;
  bool ended_ = false;
  std::thread thread_;
};

std::int32_t say(std::int32_t status, const char* text, Her2CudaError* error) {
  if (status != HER2_CUDA_OK && error != nullptr) {
    std::snprintf(error->text, sizeof error->text, "%s", text);
  }
  return status;
}

/// Counts a call and says whether it fails.
std::int32_t enter(const char* name, Her2CudaError* error) {
  const std::lock_guard lock(state.mutex);
  if (state.lost) return say(HER2_CUDA_LOST, "the context is gone", error);
  const Faults& faults = state.faults;
  if (!faults.only.empty() && faults.only != name) return HER2_CUDA_OK;
  const std::int64_t call = ++state.seen.calls;
  const bool fails =
      faults.at_call != 0 &&
      (faults.from_then_on ? call >= faults.at_call : call == faults.at_call);
  if (!fails) return HER2_CUDA_OK;
  if (faults.status == HER2_CUDA_LOST) state.lost = true;
  return say(faults.status, name, error);
}

void count_alive(int by) {
  const std::lock_guard lock(state.mutex);
  state.seen.alive += static_cast<std::size_t>(by);
  state.seen.allocations += by > 0;
}

std::int32_t count_devices(std::int32_t* count, Her2CudaError* error) {
  *count = 1;
  return enter("count_devices", error);
}

std::int32_t describe_device(std::int32_t, Her2CudaDevice* out, Her2CudaError* error) {
  *out = {};
  return enter("describe_device", error);
}

std::int32_t give(std::uint64_t bytes, void** out) {
  *out = std::malloc(bytes);  // as long as asked: a sanitizer sees the ends
  std::memset(*out, 0xA5, bytes);
  count_alive(1);
  return HER2_CUDA_OK;
}

std::int32_t allocate(std::int32_t, std::uint64_t bytes, void** out,
                      Her2CudaError* error) {
  *out = nullptr;
  const std::int32_t status = enter("allocate", error);
  return status != HER2_CUDA_OK ? status : give(bytes, out);
}

std::int32_t allocate_pinned(std::uint64_t bytes, void** out, Her2CudaError* error) {
  *out = nullptr;
  const std::int32_t status = enter("allocate_pinned", error);
  return status != HER2_CUDA_OK ? status : give(bytes, out);
}

std::int32_t release(void* memory, Her2CudaError*) {
  std::free(memory);
  count_alive(-1);
  return HER2_CUDA_OK;
}

std::int32_t create_stream(std::int32_t, void** out, Her2CudaError* error) {
  *out = nullptr;
  const std::int32_t status = enter("create_stream", error);
  if (status != HER2_CUDA_OK) return status;
  *out = new Stream;
  count_alive(1);
  return HER2_CUDA_OK;
}

std::int32_t destroy_stream(void* stream, Her2CudaError*) {
  delete static_cast<Stream*>(stream);
  count_alive(-1);
  return HER2_CUDA_OK;
}

std::int32_t synchronize(std::int32_t, void* stream, Her2CudaError* error) {
  // Work that runs has to end, whatever this call then says.
  static_cast<Stream*>(stream)->wait();
  return enter("synchronize", error);
}

std::int32_t copy(void* to, const void* from, std::uint64_t bytes, std::int32_t,
                  void* stream, Her2CudaError* error) {
  const std::int32_t status = enter("copy", error);
  if (status != HER2_CUDA_OK) return status;
  queue(stream, [=] { std::memcpy(to, from, bytes); });
  return HER2_CUDA_OK;
}

std::int32_t normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                             std::int64_t width, const float* mean, const float* std,
                             std::int32_t, void* out, void* stream,
                             Her2CudaError* error) {
  const std::int32_t status = enter("normalize_batch", error);
  if (status != HER2_CUDA_OK) return status;
  struct Values {
    float mean[3], std[3];
  } values;  // the caller's may be gone when this runs
  std::copy_n(mean, 3, values.mean);
  std::copy_n(std, 3, values.std);
  queue(stream, [=, plane = height * width] {
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t p = 0; p < plane; ++p) {
          const float unit = static_cast<float>(rgb[(i * plane + p) * 3 + c]) / 255.0F;
          static_cast<float*>(out)[(i * 3 + c) * plane + p] =
              (unit - values.mean[c]) / values.std[c];
        }
      }
    }
  });
  return HER2_CUDA_OK;
}

std::int32_t find_tumor(const float* logits, const std::uint64_t* tissue, std::int64_t n,
                        const Her2TumorRule* rule, std::uint64_t* bits,
                        std::uint32_t* counts, std::int32_t* fault, void* stream,
                        Her2CudaError* error) {
  const std::int32_t status = enter("tumor_bits", error);
  if (status != HER2_CUDA_OK) return status;
  const TumorRule own{rule->channels, rule->halo_px, rule->tile_px, rule->patch_px,
                      rule->threshold};
  queue(stream, [=] {
    const auto outputs =
        static_cast<std::size_t>(own.channels * own.side_px() * own.side_px());
    *fault = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const float* of_item = logits + i * outputs;
      *fault |= std::any_of(of_item, of_item + outputs,
                            [](float value) { return !std::isfinite(value); });
      tumor_bits(of_item, tissue + i * own.words(), own, bits + i * own.words(),
                 counts + i * own.patches());
    }
  });
  return HER2_CUDA_OK;
}

Her2CudaTable make_table() {
  Her2CudaTable table{};
  table.struct_size = sizeof table;
  table.version = HER2_CUDA_API_VERSION;
  table.count_devices = count_devices;
  table.describe_device = describe_device;
  table.allocate = allocate;
  table.release = release;
  table.allocate_pinned = allocate_pinned;
  table.release_pinned = release;
  table.copy = copy;
  table.create_stream = create_stream;
  table.destroy_stream = destroy_stream;
  table.synchronize = synchronize;
  table.normalize_batch = normalize_batch;
  table.tumor_bits = find_tumor;
  return table;
}

}  // namespace

void reset(const Faults& faults, std::size_t hold) {
  const std::lock_guard lock(state.mutex);
  state.faults = faults;
  const std::size_t alive = state.seen.alive;
  state.seen = {};
  state.seen.alive = alive;
  state.hold = hold;
  state.lost = false;
}

Seen seen() {
  const std::lock_guard lock(state.mutex);
  Seen now = state.seen;
  now.busy = state.busy;
  return now;
}

void queue(void* stream, std::function<void()> work) {
  static_cast<Stream*>(stream)->push(std::move(work));
}

}  // namespace her2fast::async_cuda

extern "C" __attribute__((visibility("default"))) const Her2CudaTable* her2_cuda_table() {
  static const Her2CudaTable table = her2fast::async_cuda::make_table();
  return &table;
}
