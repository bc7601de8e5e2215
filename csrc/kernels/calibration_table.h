// SPDX-License-Identifier: Apache-2.0
/// What calibration asks of a table again and again: a slide's loss from its areas, and
/// the loss of all slides under given values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "her2fast/logit_calibrate.h"

namespace her2fast {

using Areas = std::array<std::int64_t, kScores>;

/// A slide's limits in thousandths of a pixel; its loss in 2^-40, so that sums are exact.
class SlideLoss {
 public:
  SlideLoss(const FractionLimits& limits, int margin_permille, int label,
            std::int64_t total_px);

  std::int64_t of(const Areas& px) const {
    const auto y = static_cast<std::size_t>(label_);
    std::int64_t over = px[y] < need_px_ ? lower_ - 1000 * px[y] : 0;
    for (std::size_t c = y + 1; c < kScores; ++c) {
      const std::int64_t excess = 1000 * px[c] - upper_[c];
      over += excess > 0 ? excess : 0;
    }
    return static_cast<std::int64_t>(static_cast<double>(over) * unit_ + 0.5);
  }
  bool broken(const Areas& px) const;
  int label() const { return label_; }

 private:
  int label_;
  std::int64_t lower_, need_px_;
  std::array<std::int64_t, kScores> upper_{};
  std::int64_t strict_lower_;
  std::array<std::int64_t, kScores> strict_upper_{};
  double unit_;
};

struct Loss {
  std::int64_t fixed;  ///< 2^-40
  std::int64_t broken;
};

inline double loss_value(std::int64_t fixed) {
  return static_cast<double>(fixed) * 0x1p-40;
}

/// Patches with tumor, of slides with tumor; everything else cannot matter.
class CalibrationTable {
 public:
  CalibrationTable(const SlideTable& table, const FractionLimits& limits,
                   const CalibrateOptions& options);
  /// At most about `patches` of them, the same share of every slide, at least 64.
  CalibrationTable sample(std::int64_t patches, std::uint64_t seed) const;

  std::int64_t slides() const { return static_cast<std::int64_t>(losses.size()); }
  std::int64_t patches() const { return static_cast<std::int64_t>(tumor_px.size()); }
  Loss loss(const ClassValues& values, int workers) const;

  FractionLimits limits;
  CalibrationMode mode;
  int margin_permille;
  std::vector<std::array<float, kScores>> logits;
  std::vector<std::uint32_t> tumor_px;
  std::vector<std::int64_t> offsets;
  std::vector<SlideLoss> losses;

 private:
  CalibrationTable() = default;
};

/// The logits under `values`; scale or bias alike.
inline std::array<double, kScores> calibrated(const std::array<float, kScores>& logits,
                                              const ClassValues& values,
                                              CalibrationMode mode) {
  std::array<double, kScores> out;
  for (std::size_t c = 0; c < kScores; ++c) {
    const double logit = logits[c];
    out[c] = mode == CalibrationMode::kScale ? values[c] * logit : values[c] + logit;
  }
  return out;
}

inline int best_class(const std::array<double, kScores>& l) {
  const int low = l[1] > l[0], high = 2 + (l[3] > l[2]);
  return l[static_cast<std::size_t>(high)] > l[static_cast<std::size_t>(low)] ? high
                                                                              : low;
}

}  // namespace her2fast
