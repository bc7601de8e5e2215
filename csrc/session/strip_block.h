// SPDX-License-Identifier: Apache-2.0
/// A square of grid pixels on its way from level-0 pixels to its values.
///
/// Thread-safety: none; one thread at a time has a block. Bits: the source pixels of a
/// block are those of the reader's definition, and so is the resampler.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/strip_assembler.h"
#include "io/resample.h"

namespace her2fast {

/// What one thread works with.
struct StripScratch {
  AxisWeights x, y;
  ResampleScratch resample;
  std::vector<std::uint8_t> window;
};

/// Grid pixels [first, first + count) of one axis and the level-0 pixels under them.
struct BlockAxis {
  AxisStep step;
  std::int64_t first = 0, count = 0;
  SourceSpan span;        ///< under the grid pixels; may end beyond the slide
  std::int64_t end0 = 0;  ///< of the span within the slide

  BlockAxis(AxisStep step, std::int64_t first, std::int64_t count,
            std::int64_t level0_px);
  std::int64_t inside_px() const { return end0 - span.first; }
  std::int64_t span_px() const { return span.end - span.first; }
};

class StripBlock {
 public:
  /// What one `add` found.
  struct Found {
    std::int64_t repeated_px = 0, differing_px = 0;
  };

  bool complete() const { return !grid_.empty(); }
  /// True once the source pixels have memory; `reserve` gives it.
  bool open() const { return !source_.empty(); }
  /// True where `rect` alone fills the block, so that no source pixel need be kept.
  bool filled_by(const BlockAxis& x, const BlockAxis& y, const PixelRect& rect) const;

  /// Bytes `reserve` takes, and bytes the values take.
  static std::size_t source_bytes(const BlockAxis& x, const BlockAxis& y);
  static std::size_t grid_bytes(const BlockAxis& x, const BlockAxis& y);
  void reserve(const BlockAxis& x, const BlockAxis& y);

  /// Takes what of `rect` lies in the block; it may then be complete, and its source
  /// pixels are let go. Not to be called on a complete block.
  Found add(const BlockAxis& x, const BlockAxis& y, const PixelRect& rect,
            StripScratch& scratch);

  /// (y.count, x.count, 3) of a complete block.
  const std::vector<std::uint8_t>& grid() const { return grid_; }

 private:
  void fill(const BlockAxis& x, const BlockAxis& y, const PixelRect& rect,
            StripScratch& scratch);
  void finish(const BlockAxis& x, const BlockAxis& y,
              ImageView<const std::uint8_t> source, StripScratch& scratch);

  std::vector<std::uint8_t> source_;  // (span of y, span of x, 3)
  std::vector<std::uint64_t> have_;   // (inside rows, words a row): delivered pixels
  std::int64_t have_px_ = 0;
  std::vector<std::uint8_t> grid_;
};

}  // namespace her2fast
