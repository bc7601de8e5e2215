// SPDX-License-Identifier: Apache-2.0
/// Tiles at any spacing, read by native threads.
///
/// The pixel definition (design.md, "Frames, units, grids"): a grid pixel is the
/// area-weighted mean of the source pixels under it, separable 16-bit fixed-point weights
/// that sum to 65536 on each axis, rounded half up. Beyond the slide is white. The source
/// level is the coarsest whose spacing is at most 1 % above the target. `kScaled` lets
/// the JPEG decoder work at 1/2, 1/4 or 1/8 where the result still passes that rule;
/// `kExact` decodes fully. `kLevel0` is `kScaled` of level 0 whatever levels there are: a
/// stored level was compressed a second time, at its own spacing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "her2fast/slide.h"

namespace her2fast {

enum class ReadingMode { kScaled, kExact, kLevel0 };

/// Which level, at which decode denominator, serves a spacing.
struct ReadPlan {
  int level = 0;
  int denominator = 1;
};
/// @throws Error kNoLevel where the target is finer than level 0 by more than 1 %
ReadPlan plan_read(const Slide& slide, const SlideFrame& frame, Spacing target,
                   ReadingMode mode);

/// What a record warns of: the level that serves this spacing is coarser than level 0 and
/// than half of the spacing, and JPEG that is decoded here. Compressing takes faint color
/// away; averaging a finer level hides most of that, and a level stored at about the
/// working spacing is not averaged (docs/design/embedding.md, "Raw pixels and JPEG").
/// @returns nothing where nothing is to be said, also where no level serves. What
/// OpenSlide decodes is not known, and nothing is said of it.
std::optional<std::string> stored_level_warning(const Slide& slide,
                                                const SlideFrame& frame, Spacing target,
                                                ReadingMode mode);
/// The same of a JPEG level of that spacing, which is coarser than level 0.
std::optional<std::string> stored_level_warning(double level_um, Spacing target);

/// One answered request. `rgb` is (height, width, 3) and owned by the answer.
struct TileAnswer {
  ReadRequest request;
  /// The worst of the source tiles it touched: kOk < kWarned < kCorrupt < kMissing. What
  /// a corrupt or missing tile covers is white; a request wholly beyond the slide touches
  /// none and is kOk.
  TileStatus status = TileStatus::kOk;
  std::vector<std::uint8_t> rgb;
};

struct ReaderOptions {
  int workers = 2;  ///< decoding threads, 1 to 256
  std::size_t cache_bytes = std::size_t{64}
                            << 20;  ///< decoded source tiles kept for neighbours
  std::size_t max_ahead = 64;       ///< answers waiting for `next`
  ReadingMode mode = ReadingMode::kScaled;
};

/// Reads one request at a time on the caller's thread, or many on its own threads.
///
/// Thread-safety: `read` may be called from many threads. `submit`, `next` and `cancel`
/// too. Memory: cache_bytes + max_ahead answers + 6 MB a thread, whatever the slide and
/// request. Bytes: the same for any number of workers, order, cache size and way of
/// asking.
class TileReader {
 public:
  TileReader(std::shared_ptr<const Slide> slide, SlideFrame frame, ReaderOptions options);
  ~TileReader();  ///< cancels and joins
  TileReader(const TileReader&) = delete;
  TileReader& operator=(const TileReader&) = delete;

  /// What serves this spacing on this slide. @throws Error kNoLevel
  ReadPlan plan(Spacing target) const;

  /// @param out (request.height_px, request.width_px, 3).
  /// @throws Error kNoLevel, kIo, kLimitExceeded (a pixel covers 8192 source px a side or
  /// more)
  TileStatus read(const ReadRequest& request, ImageView<std::uint8_t> out) const;

  /// Reads `requests` on `options.workers` threads and calls `sink` for each, from those
  /// threads, in any order, until `source` (never called twice at once; it may block)
  /// returns an empty vector. Blocks until all is done. The first exception of source,
  /// sink or a read stops the rest and is rethrown; `cancel` ends it with Error
  /// kCancelled. A `source` that blocks has to return by itself then.
  void run(const std::function<std::vector<ReadRequest>()>& source,
           const std::function<void(TileAnswer&&)>& sink) const;

  /// The same in the background, answers in the order of `requests`, at most `max_ahead`
  /// waiting.
  void submit(std::vector<ReadRequest> requests);
  /// The same into memory of the caller, who keeps it until the answers were handed out
  /// or `cancel` has returned: `out` is (requests, height, width, 3), all requests have
  /// one size, and `TileAnswer::rgb` stays empty.
  /// @throws std::invalid_argument  requests of different sizes
  void submit(std::vector<ReadRequest> requests, std::uint8_t* out);
  /// The next answer in order; false when all were handed out. Blocks. An error is
  /// rethrown in its request's place; the answers after it follow. The buffer in `answer`
  /// is taken for later ones.
  bool next(TileAnswer& answer);
  /// The next answers in order, as many as `statuses` has room for or as there are; one
  /// wait for all. Returns their number. Their pixels are where `submit` was told to put
  /// them.
  std::size_t next(std::span<TileStatus> statuses);
  /// Drops what was not handed out, waits for the tiles at work, and stops `run`. Where
  /// something was dropped, `next` throws Error kCancelled until the next `submit`.
  void cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
