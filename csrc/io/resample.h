// SPDX-License-Identifier: Apache-2.0
/// The pixel definition: area-weighted mean with 16-bit fixed-point weights
/// (docs/design/reading.md).
///
/// Along an axis, grid pixel i covers the source interval [i*step, (i+1)*step), `step` an
/// exact rational. The share of the interval left of each source pixel's right edge is
/// rounded half up to 16 bits; a weight is the difference of neighboring shares, so they
/// sum to 65536. A value is floor((sum wy*wx*v + 2^31) / 2^32).
/// tests/reference/resample.py is the readable twin.
///
/// Thread-safety: pure functions; a `ResampleScratch` belongs to one thread. No
/// allocation once the scratch has grown. The speed paths give the same bits: every
/// intermediate is exact. So does the CUDA twin (csrc/cuda/resample.cu), of these
/// weights.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast {

/// Source pixels per grid pixel, in lowest terms.
struct AxisStep {
  std::int64_t num = 1;
  std::int64_t den = 1;
  bool operator==(const AxisStep&) const = default;
};

/// Step from decoded pixels (1/`denominator` of a level that is level 0 over num/den) to
/// the grid.
/// @throws Error kLimitExceeded where the fraction does not fit 62 bits
AxisStep source_step(Spacing target, Spacing level0, std::int64_t down_num,
                     std::int64_t down_den, int denominator);

/// Whether pixels of that spacing, 1/`denominator` of a level that is level 0 over
/// num/den, may serve `target`: at most 1 % coarser (the one definition of NO_LEVEL).
constexpr bool fine_enough(Spacing target, Spacing level0, std::int64_t down_num,
                           std::int64_t down_den, int denominator) {
  using Wide = __int128;
  return Wide{100} * level0.pm * denominator * down_num <=
         Wide{101} * target.pm * down_den;
}

/// What JPEG can be decoded at: 1, 1/2, 1/4, 1/8.
constexpr bool is_denominator(int n) { return n == 1 || n == 2 || n == 4 || n == 8; }
/// The coarsest for which `fits(denominator)`; 1 is always one.
template <typename Fits>
int coarsest_denominator(const Fits& fits) {
  int coarsest = 1;
  for (const int n : {2, 4, 8}) {
    if (fits(n)) coarsest = n;
  }
  return coarsest;
}

/// Source interval [first, end) under grid pixels [index, index + count). 0 < count.
struct SourceSpan {
  std::int64_t first = 0;
  std::int64_t end = 0;
};
SourceSpan source_span(AxisStep step, std::int64_t index, std::int64_t count);

/// Weights of `count` grid pixels along one axis; reused while step, phase and count
/// stay.
class AxisWeights {
 public:
  void plan(AxisStep step, std::int64_t index, std::int64_t count);

  std::int64_t count() const { return count_; }
  /// Source pixels the weights reach over; start() counts from the first of them.
  std::int64_t source_px() const { return source_px_; }
  std::int32_t start(std::int64_t i) const {
    return starts_[static_cast<std::size_t>(i)];
  }
  const std::int32_t* starts() const { return starts_.data(); }
  /// Weights that are not padding for grid pixel i.
  std::int32_t taps(std::int64_t i) const { return counts_[static_cast<std::size_t>(i)]; }
  /// Row length of weights(): the widest pixel's taps; narrower ones end in zeros.
  std::int32_t max_taps() const { return max_taps_; }
  const double* weights(std::int64_t i) const { return weights_.data() + i * max_taps_; }
  /// (count / 2, max_taps, 8): 2^-32 of the weights of two pixels, four times each.
  const float* pair_weights() const { return pair_weights_.data(); }
  /// n where every grid pixel is exactly n source pixels and n is 1, 2, 4, 8 or 16; else
  /// 0.
  int box() const { return box_; }
  /// As libher2fast_cuda takes them (Her2AxisWeights): (count, 2 + max_taps) of start,
  /// taps and weights.
  std::vector<std::int32_t> integer_rows() const;

 private:
  AxisStep step_{0, 0};
  std::int64_t phase_ = -1;
  std::int64_t count_ = 0;
  std::int64_t source_px_ = 0;
  std::int32_t max_taps_ = 0;
  int box_ = 0;
  std::vector<std::int32_t> starts_;  // source px from the window's first column (row)
  std::vector<std::int32_t> counts_;
  std::vector<double> weights_;  // (count, max_taps); integers 0 to 65536
  std::vector<float> pair_weights_;
};

/// A source that lies in tiles side by side, so that nobody has to put it together.
struct SourceTiles {
  std::vector<std::int64_t> x, y;  ///< edges of columns and rows of tiles, from 0
  std::vector<ImageView<const std::uint8_t>> tiles;  ///< row by row, cut to the source
};

struct ResampleScratch {
  std::vector<float> row;
  std::vector<std::uint16_t> sums;
  SourceTiles one;  // a picture as the one tile it is
};

/// @param source (y.source_px(), x.source_px(), 3); white has been filled in beyond the
/// slide.
/// @param out    (y.count(), x.count(), 3); every element is written.
/// @throws std::invalid_argument  other shapes
void resample(ImageView<const std::uint8_t> source, const AxisWeights& x,
              const AxisWeights& y, ImageView<std::uint8_t> out,
              ResampleScratch& scratch);
/// The same from tiles.
void resample(const SourceTiles& source, const AxisWeights& x, const AxisWeights& y,
              ImageView<std::uint8_t> out, ResampleScratch& scratch);

/// Whether every pixel is the mean of n x n, for which there is a quicker way.
inline bool is_box(const AxisWeights& x, const AxisWeights& y) {
  return x.box() != 0 && x.box() == y.box();
}

}  // namespace her2fast
