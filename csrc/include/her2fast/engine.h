// SPDX-License-Identifier: Apache-2.0
/// Whatever computes models: a table of functions, and threads that drive a session by
/// it.
///
/// A host fills an `EngineTable` with its own runtime (TensorRT, OpenVINO, DirectML, ...)
/// or takes one from a provider such as libher2fast_torch. Nothing else of the library
/// knows how a model is computed.
///
/// Thread-safety: `run` is called from as many threads at once as the driver has. A
/// session may be pushed to, asked and cancelled while it is driven. Ownership: the table
/// is copied; what `context` points to must live until the driver is joined, and `close`
/// is the owner's to call, never the driver's. Bytes: a batch has one fixed shape and
/// every item one place, so the measurement is the same for any number of threads, as
/// long as `run` gives the same outputs for the same pixels.
#pragma once

#include <cstdint>
#include <memory>

#include "her2fast/error.h"
#include "her2fast/session.h"

namespace her2fast {

/// Plain data with C layout and C calls: the C interface passes it on as it is.
struct EngineTable {
  /// sizeof the struct as the filler knows it; fields beyond it count as null.
  std::uint64_t struct_size = sizeof(EngineTable);
  void* context = nullptr;
  /// One batch of model `model` (index into Session::models()).
  /// @param rgb     (n, height_px, width_px, 3), owned by the session until it returns.
  /// @param output  (n, outputs); all of it is written. Logits, as the package's
  ///                `activation` says; of a segmenter (n, channels, height, width).
  /// @returns 0, or engine_status(code). Must not throw.
  std::int32_t (*run)(void* context, std::int32_t model, std::int64_t batch_id,
                      const std::uint8_t* rgb, std::int32_t n, std::int32_t height_px,
                      std::int32_t width_px, float* output,
                      std::int64_t outputs) = nullptr;
  /// Frees `context`. Null: nothing to free.
  void (*close)(void* context) = nullptr;
  /// Why the last `run` on the calling thread failed, in words; valid until its next
  /// `run`. Null, or a null or empty text: nothing is known.
  const char* (*message)(void* context) = nullptr;
};

/// What `run` returns to end the session with `code`. Any other value but 0 is kCrash.
constexpr std::int32_t engine_status(Code code) {
  return 1 + static_cast<std::int32_t>(code);
}

/// Threads that take a session's batches, run them and put the outputs back, from
/// construction until the session has none left, fails or is cancelled.
class EngineDriver {
 public:
  /// @param threads  batches computed side by side, 1 to 256.
  /// @throws std::invalid_argument  threads, or a table without `run`
  EngineDriver(Session& session, const EngineTable& engine, int threads);
  /// Cancels the session unless `join` has returned, and waits for the threads.
  ~EngineDriver();
  EngineDriver(const EngineDriver&) = delete;
  EngineDriver& operator=(const EngineDriver&) = delete;

  /// Waits until no batch will come any more. A failure is the session's too: `finish`
  /// throws it, whether or not `join` was called. Does not throw.
  void join();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Drives `session` on `threads` threads until nothing is left to compute; somebody else
/// pushes pixels meanwhile, or has pushed them. A failed batch ends the session.
/// @throws std::invalid_argument
void drive(Session& session, const EngineTable& engine, int threads);

}  // namespace her2fast
