// SPDX-License-Identifier: Apache-2.0
/// One slide of a host: a session, the threads that compute its models, and either a feed
/// of pushed pixels or a reader of a slide.
///
/// Thread-safety: every member may be called from any thread. Ends in this order,
/// whatever happened: who computes and who reads (they ask the feed), then the feed, then
/// the session.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "capi/handles.h"
#include "her2fast/tile_reader.h"
#include "session/scan_feed.h"

namespace her2fast::capi {

class ScanSession {
 public:
  /// @param slide  null: pixels are pushed
  ScanSession(std::shared_ptr<const Engine> engine, std::shared_ptr<const Slide> slide,
              const her2_session_options& options);
  ~ScanSession();

  bool try_push(const PixelRect& rect, PixelRelease release);
  her2_progress progress() const;
  std::shared_ptr<const Measured> snapshot() const;
  void cancel();
  /// The same value, or the same exception, at every call.
  std::shared_ptr<const Measured> finish();

 private:
  void read_slide() noexcept;
  void log(std::int32_t level, const std::string& message) const noexcept;
  void report_progress() noexcept;
  void report_end(const Measured& measured) const;
  static std::int32_t run(void* context, std::int32_t model, std::int64_t batch_id,
                          const std::uint8_t* rgb, std::int32_t n, std::int32_t height_px,
                          std::int32_t width_px, float* output, std::int64_t outputs);
  static const char* message(void* context);

  std::shared_ptr<const Engine> engine_;
  her2_session_options options_;
  Source source_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<ScanFeed> feed_;
  std::unique_ptr<TileReader> reader_;

  std::mutex progress_mutex_;
  std::chrono::steady_clock::time_point next_progress_{};
  std::mutex finish_mutex_;
  std::shared_ptr<const Measured> measured_;

  // Last, so that they are joined before anything that they use goes.
  std::unique_ptr<EngineDriver> driver_;
  std::jthread reading_;
};

}  // namespace her2fast::capi

struct her2_session {
  std::unique_ptr<her2fast::capi::ScanSession> session;
};
