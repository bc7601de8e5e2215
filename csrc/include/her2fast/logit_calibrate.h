// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "her2fast/image.h"
#include "her2fast/slide_table.h"

namespace her2fast {

/// What the four values do to the logits.
enum class CalibrationMode {
  kScale,  ///< factors > 0 of geometric mean 1 (the paper's)
  kBias,   ///< offsets of mean 0
};
/// "scale", "bias". @throws std::invalid_argument
CalibrationMode parse_calibration_mode(std::string_view name);

using ClassValues = std::array<double, kScores>;

struct CalibrateOptions {
  CalibrationMode mode = CalibrationMode::kScale;
  /// L is raised and U lowered by this in the loss: room for slides not seen; 0 to 99.
  std::int32_t margin_permille = 0;
  int starts = 12;  ///< in all: no change, those given, the rest random; 1 to 10000
  std::uint64_t seed = 0;
  /// The starts descend on at most about this many patches; the best descends on all.
  std::int64_t search_patches = 60'000;
  int workers = 1;  ///< 1 to 1024; the result does not depend on it
};

struct CalibrationResult {
  ClassValues values;
  double loss;           ///< at `values`
  double identity_loss;  ///< without calibration
  std::int64_t broken;   ///< slides with a broken limit at `values`, without the margin
  std::int64_t sweeps;   ///< lines searched
};

struct CalibrationLoss {
  double loss;
  std::int64_t broken;
};

/// The hard loss of slide labels (Pham et al., Eq. 20 with the slide's label Y).
///
/// A patch belongs to the class of the highest values[c] * logit[c] (or values[c] +
/// logit[c]) in double precision, the lowest class where equal. V[c] is its share of the
/// slide's tumor pixels. A slide's loss is max(0, L[Y] + margin - V[Y]) plus, over c > Y,
/// max(0, V[c] - U[Y][c] + margin), from integers, rounded half up to 2^-40; the loss is
/// their sum, so that no order of adding changes it. Limits that are off stay off. A
/// slide without tumor adds 0. `broken` counts as constraint_select does.
/// @throws as logit_calibrate.
CalibrationLoss calibration_loss(const SlideTable& table, const FractionLimits& limits,
                                 const ClassValues& values,
                                 const CalibrateOptions& options);

/// Values of low hard loss, found by exact line search.
///
/// Along a line the values of one group of classes change together (four single classes,
/// three pairs: every split of four in two). Each patch then changes class at most once;
/// the changes are sorted and swept, and the middle of the best stretch is taken. A step
/// counts only where the loss measured there is lower.
/// @param starts  any number; factors must be finite and > 0, offsets finite. The result
///                is never above any of them nor above no change at all. (Values keep
///                their scale where bringing it to 1 would, by rounding, cost loss.)
/// Cost: O(n log n) per line in the worst case. Deterministic for a seed.
/// @throws std::invalid_argument  a shape or a value is wrong, a logit is not finite.
/// @throws DeviceError            this build or this machine lacks `device`.
CalibrationResult logit_calibrate(const SlideTable& table, const FractionLimits& limits,
                                  std::span<const ClassValues> starts,
                                  const CalibrateOptions& options,
                                  Device device = Device::kCpu);

}  // namespace her2fast
