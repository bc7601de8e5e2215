// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/calibration_table.h"

namespace her2fast {

/// A stretch of a line on which the loss is lowest, found without a single evaluation.
struct Stretch {
  std::int64_t fixed;  ///< the loss there
  double middle;       ///< factor or offset for the group
  double inner;        ///< a second choice within it, should rounding spoil the first
};

/// Event of a sweep: one patch passes from one class to another.
struct ClassChange {
  double at;
  std::uint32_t tumor_px;
  std::uint32_t slide_and_classes;  ///< slide << 4 | from << 2 | to
};

/// Buffers of a sweep, kept between sweeps.
struct SweepScratch {
  std::vector<ClassChange> events, sorted;
  std::vector<std::int64_t> buckets;
  std::vector<Areas> px;
  std::vector<std::int64_t> losses;
};

/// Moves the classes in `group` (bits) together: all their values times t > 0, or plus t.
///
/// Within and outside the group the winners a and b stay the same, so a patch changes
/// class at most once: where t * a = b (or t + a = b).
Stretch sweep_line(const CalibrationTable& table, const ClassValues& values,
                   unsigned group, SweepScratch& scratch);

}  // namespace her2fast
