// SPDX-License-Identifier: Apache-2.0
/// Pixels of a running scan on their way into a session: a queue that never blocks who
/// fills it, and a thread that empties it through a `StripAssembler`.
/// Where the host says how it stores them, they pass through its JPEG first
/// (`StoredTiles`), on the same thread.
///
/// Thread-safety: every member may be called from any thread. One thread assembles, in
/// the order in which rectangles were taken, so that the first delivery of a pixel wins
/// also where deliveries differ. Memory: `queue_bytes` of waiting pixels
/// and of memory kept for the next copies, `block_bytes` of what is being assembled,
/// `batch_bytes` of full batches; when the models fall behind, the thread waits, the
/// queue fills and `try_push` says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "her2fast/session.h"
#include "her2fast/strip_assembler.h"
#include "session/stored_tiles.h"

namespace her2fast {

struct ScanFeedLimits {
  std::size_t queue_bytes = 0, block_bytes = 0, batch_bytes = 0;
  std::size_t stored_bytes = 0;  ///< of tiles that wait to be coded
  /// A quarter to the queue, a quarter to batches, the rest to blocks, or half of it to
  /// them and half to tiles that are to be coded.
  static ScanFeedLimits share(std::size_t max_memory_bytes, bool stored = false);
};

/// Called once when pixels that were handed over are no longer needed, on the feed's
/// thread or on the one that ends the feed. Must not throw.
struct PixelRelease {
  void (*call)(void* context, const void* data) = nullptr;
  void* context = nullptr;
};

class ScanFeed {
 public:
  struct Counts {
    StripAssembler::Counts strips;  ///< of level-0 pixels; bytes of all that is held
    std::size_t queue_bytes = 0;    ///< of pixels that wait; of a copy, what it takes
    std::size_t held_bytes = 0, peak_held_bytes = 0;  ///< with what is kept for copies
    std::int64_t queued = 0;                          ///< rectangles that wait
    std::int64_t would_block = 0;                     ///< times `try_push` was refused
  };

  /// Takes all requests of the session, which then has one round and no other driver.
  /// @throws as StripAssembler and StoredTiles
  ScanFeed(Session& session, const SlideFrame& frame, ScanFeedLimits limits,
           const std::optional<StoredCoding>& stored = std::nullopt);
  /// As `end`.
  ~ScanFeed();
  ScanFeed(const ScanFeed&) = delete;
  ScanFeed& operator=(const ScanFeed&) = delete;

  /// False where the queue is full now: nothing was taken, try again later. Without
  /// `release.call` the pixels are copied before it returns; with it they stay the
  /// caller's until it is called, which happens exactly once if true is returned.
  /// @throws std::invalid_argument  as PixelRect::check, or a copy larger than the queue;
  ///         Error: the session has ended with it, or kCancelled after `stop`
  bool try_push(const PixelRect& rect, PixelRelease release);
  /// Waits until all that was taken is in the session, or the session has ended. Later
  /// pushes throw kCancelled.
  void drain();
  /// Cancels the session and drops what waits; `drain` returns.
  void stop();
  /// As `stop`, waits for the thread and releases what was taken. Not from callbacks.
  void end();
  Counts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
