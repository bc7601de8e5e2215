// SPDX-License-Identifier: Apache-2.0
#include "kernels/calibration_table.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/parallel.h"
#include "kernels/log_odds.h"

namespace her2fast {
namespace {

constexpr std::int64_t kOff = std::int64_t{1} << 62;
constexpr std::int64_t kMinSamplePerSlide = 64;

}  // namespace

SlideLoss::SlideLoss(const FractionLimits& limits, int margin_permille, int label,
                     std::int64_t total_px)
    : label_(label) {
  const auto y = static_cast<std::size_t>(label);
  const std::int64_t lower = limits.lower_permille[y];
  strict_lower_ = lower * total_px;
  lower_ = lower == 0 ? 0 : (lower + margin_permille) * total_px;
  need_px_ = (lower_ + 999) / 1000;
  for (std::size_t c = y + 1; c < kScores; ++c) {
    const std::int64_t upper = limits.upper_permille[y][c];
    strict_upper_[c] = upper > 1000 ? kOff : upper * total_px;
    upper_[c] = upper > 1000 ? kOff : (upper - margin_permille) * total_px;
  }
  unit_ = 0x1p40 / (1000.0 * static_cast<double>(total_px));
}

bool SlideLoss::broken(const Areas& px) const {
  const auto y = static_cast<std::size_t>(label_);
  bool broken = 1000 * px[y] < strict_lower_;
  for (std::size_t c = y + 1; c < kScores; ++c) {
    broken |= 1000 * px[c] >= strict_upper_[c];
  }
  return broken;
}

CalibrationTable::CalibrationTable(const SlideTable& table, const FractionLimits& limits,
                                   const CalibrateOptions& options)
    : limits(limits), mode(options.mode), margin_permille(options.margin_permille) {
  offsets.push_back(0);
  logits.reserve(table.tumor_px.size());
  tumor_px.reserve(table.tumor_px.size());
  for (std::size_t s = 0; s < table.labels.size(); ++s) {
    std::int64_t total = 0;
    for (std::int64_t i = table.offsets[s]; i < table.offsets[s + 1]; ++i) {
      const auto p = static_cast<std::size_t>(i);
      const float* l = table.logits.data() + kScores * p;
      if (!all_finite(l, kScores)) {
        throw std::invalid_argument("need finite logits, got another at patch " +
                                    std::to_string(i));
      }
      if (table.tumor_px[p] == 0) continue;
      total += table.tumor_px[p];
      tumor_px.push_back(table.tumor_px[p]);
      logits.push_back({l[0], l[1], l[2], l[3]});
    }
    if (total == 0) continue;
    offsets.push_back(patches());
    losses.emplace_back(limits, margin_permille, static_cast<int>(table.labels[s]),
                        total);
  }
}

CalibrationTable CalibrationTable::sample(std::int64_t wanted, std::uint64_t seed) const {
  CalibrationTable out;
  out.limits = limits;
  out.mode = mode;
  out.margin_permille = margin_permille;
  out.offsets.push_back(0);
  for (std::size_t s = 0; s < losses.size(); ++s) {
    const std::int64_t begin = offsets[s], count = offsets[s + 1] - begin;
    const std::int64_t share = static_cast<std::int64_t>(static_cast<double>(count) *
                                                         static_cast<double>(wanted) /
                                                         static_cast<double>(patches()));
    const std::int64_t keep = std::min(count, std::max(share, kMinSamplePerSlide));
    std::int64_t total = 0;
    for (std::int64_t k = 0; k < keep; ++k) {
      // One of each stretch of count / keep patches, at a pseudorandom place.
      const std::int64_t low = k * count / keep, high = (k + 1) * count / keep;
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const auto p = static_cast<std::size_t>(
          begin + low +
          static_cast<std::int64_t>((seed >> 33) %
                                    static_cast<std::uint64_t>(high - low)));
      out.logits.push_back(logits[p]);
      out.tumor_px.push_back(tumor_px[p]);
      total += tumor_px[p];
    }
    out.offsets.push_back(out.patches());
    out.losses.emplace_back(limits, margin_permille, losses[s].label(), total);
  }
  return out;
}

Loss CalibrationTable::loss(const ClassValues& values, int workers) const {
  std::vector<Loss> parts(losses.size());
  parallel_for(slides(), workers, [&](std::int64_t i, int) {
    const auto s = static_cast<std::size_t>(i);
    Areas px{};
    for (std::int64_t k = offsets[s]; k < offsets[s + 1]; ++k) {
      const auto p = static_cast<std::size_t>(k);
      px[static_cast<std::size_t>(best_class(calibrated(logits[p], values, mode)))] +=
          tumor_px[p];
    }
    parts[s] = {losses[s].of(px), losses[s].broken(px)};
  });
  Loss sum{};
  for (const Loss& part : parts) {
    sum.fixed += part.fixed;
    sum.broken += part.broken;
  }
  return sum;
}

}  // namespace her2fast
