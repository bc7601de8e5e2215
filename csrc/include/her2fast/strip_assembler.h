// SPDX-License-Identifier: Apache-2.0
/// Level-0 pixels as a scanner delivers them, put together to answers of requests.
///
/// Rectangles of any shape come in any order; a request is answered when all of the slide
/// under it was delivered. The answer has the bits of reading the same pixels with
/// `ReadingMode::kExact` at level 0: one pixel definition (docs/design/reading.md), one
/// resampler.
///
/// Each level-0 pixel counts once: the first delivery wins. What comes again, from an
/// overlap, a duplicate or a second scan, is dropped and counted, and so are pixels that
/// differ from the first delivery where that is still held. What never comes leaves its
/// requests unanswered: missing, not white.
///
/// Thread-safety: every member may be called from any thread. `add` calls `answer` on its
/// own thread, after it has let go of every lock. Where two threads deliver the same
/// pixel at once, either delivery may win. Ownership: pixels are used before `add`
/// returns. Memory: pixels of blocks that are partly delivered, and finished grid pixels
/// of requests that are not full; in raster, serpentine or column order a band of the
/// slide, in any other order up to `max_bytes`, then an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast {

/// kBlank has no pixels: whoever delivers it vouches that the rectangle is empty glass
/// outside of what is scanned; it counts as white (255).
enum class PixelFormat : std::uint8_t { kRgb, kBgr, kRgba, kBgra, kBlank };

/// Bytes a pixel; 0 of kBlank. @throws std::invalid_argument  no such format
std::int64_t bytes_per_pixel(PixelFormat format);

/// Pixels of level 0, 8 bits a channel; alpha is ignored.
struct PixelRect {
  std::int64_t x0_px = 0, y0_px = 0, width_px = 0, height_px = 0;
  const std::uint8_t* data = nullptr;  ///< the upper left pixel; null of kBlank
  std::int64_t stride_bytes = 0;       ///< between rows; 0: rows follow each other
  PixelFormat format = PixelFormat::kRgb;

  /// Bytes between rows, also where the stride is stated as 0.
  std::int64_t row_step() const;
  /// @throws std::invalid_argument  not inside the slide, no data, a stride under a row
  void check(const SlideFrame& frame) const;
};

class StripAssembler {
 public:
  /// Gets the full request and its (height_px, width_px, 3) pixels.
  using Answer =
      std::function<void(const ReadRequest& request, ImageView<const std::uint8_t> rgb)>;

  struct Counts {
    std::int64_t delivered_px = 0;  ///< level-0 pixels handed to `add`
    /// Of pixels that some request needs: delivered before. A pixel under the edge
    /// between two blocks counts once in each.
    std::int64_t repeated_px = 0;
    std::int64_t differing_px = 0;  ///< repeated, and seen to differ from what was kept
    /// Repeated when what was kept was gone: whether they differ is not known.
    std::int64_t uncompared_px = 0;
    std::int64_t answered = 0;              ///< requests
    std::size_t bytes = 0, peak_bytes = 0;  ///< held now, and most so far
  };

  /// @param requests  on one grid; they may overlap, and reach beyond the slide (white).
  ///                  Each touches the slide.
  /// @throws std::invalid_argument; Error kNoLevel (a grid finer than level 0 by more
  ///         than 1 %), kLimitExceeded
  StripAssembler(const SlideFrame& frame, std::vector<ReadRequest> requests,
                 Answer answer, std::size_t max_bytes);
  ~StripAssembler();
  StripAssembler(const StripAssembler&) = delete;
  StripAssembler& operator=(const StripAssembler&) = delete;

  /// @throws std::invalid_argument  as PixelRect::check; nothing has changed then. Error
  ///         kLimitExceeded: this order needs more than `max_bytes`; every later `add`
  ///         throws it again. Whatever `answer` throws.
  void add(const PixelRect& rect);

  Counts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
