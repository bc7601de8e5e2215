// SPDX-License-Identifier: Apache-2.0
/// Batches of sessions, computed on a GPU: pixels go up as uint8 from pinned memory and
/// are normalized there; only results come back.
///
///   session batch -> copy -> normalize_batch -> the host's runtime -> tumor_bits -> copy
///
/// A ring has a few places, each with its stream and its memory, so that one batch is
/// copied or computed while another's results are read. It keeps them for the sessions
/// that follow. Thread-safety: a ring belongs to one thread at a time; several rings may
/// drive one session. Errors: as Session's; nothing is in flight on the GPU once `run`
/// has returned or thrown. Needs libher2fast_cuda, which is opened on first use.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "her2fast/session.h"

namespace her2fast {

/// How a model wants its pixels: (v / 255 - mean) / std per channel.
struct DeviceModel {
  std::array<float, 3> mean{0, 0, 0}, std{1, 1, 1};
};

/// Work for a runtime that lives on the same GPU.
struct DevicePiece {
  std::int32_t model = 0;  ///< index into Session::models()
  std::int32_t n = 0, height_px = 0, width_px = 0;
  const float* inputs = nullptr;  ///< device, (n, 3, height_px, width_px)
  float* outputs = nullptr;       ///< device, (n, outputs); all of it is to be written
  std::int64_t outputs_per_item = 0;
  void* stream = nullptr;  ///< cudaStream_t
};

/// Queues a model on the piece's stream and does not wait. False: out of memory; what was
/// queued before may run. Throws whatever else went wrong.
using DeviceCompute = std::function<bool(const DevicePiece&)>;

/// What computes models on the GPU; called on the thread that runs a ring.
struct DeviceRuntime {
  DeviceCompute compute;
  std::function<void()> free_memory{};  ///< gives back what it keeps unused; may be empty
};

struct DeviceOptions {
  std::int32_t device = 0;     ///< number of the GPU
  std::int32_t in_flight = 2;  ///< batches on their way at once, 1 to 16
};

class DeviceRing {
 public:
  /// @throws std::invalid_argument; DeviceError: no library, no driver or no such GPU
  DeviceRing(std::vector<DeviceModel> models, DeviceOptions options);
  /// Waits for what is queued; frees everything.
  ~DeviceRing();
  DeviceRing(const DeviceRing&) = delete;
  DeviceRing& operator=(const DeviceRing&) = delete;

  /// Takes the session's batches and puts their results back, until none is ready
  /// (`wait` false) or none will ever come (`wait` true). Out of memory, it goes on with
  /// one half batch at a time, once. Returns how many batches it computed.
  /// @throws Error kGpuOom (also with half a batch), kGpuLost, kNonFinite; the session's
  ///         error; what `runtime` throws. The caller ends the session with it.
  std::int64_t run(Session& session, const DeviceRuntime& runtime, bool wait);

  /// Whether batches are halved, for lack of memory.
  bool halved() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Pinned host memory for sessions (SessionOptions::memory): copies from it to a GPU
/// overlap with work. Kept for the sessions that follow. Where the machine pins no more,
/// plain memory, whose copies are as right and slower. @throws DeviceError: no library
std::shared_ptr<BatchMemory> make_pinned_memory();

}  // namespace her2fast
