// SPDX-License-Identifier: Apache-2.0
/// How much tumor would have to be of another class for another score: exact.
///
/// docs/design/decide.md has the definition and why it is exact. Pure functions;
/// thread-safe; microseconds.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace her2fast {

struct FlipOptions {
  int floor_percent = 1;  ///< as in GuidelineOptions
  /// Area of the two largest patches of each class (of one, or 0, where there are no
  /// more): what a class may keep and still be short of the three patches of the floor.
  /// Absent: patches are not counted.
  std::optional<std::array<std::int64_t, 4>> two_largest_px;
};

/// Areas move from class to class pixel by pixel, their sum stays. A class is present
/// from max(1, floor, two_largest_px + 1) px on: one that is short of three patches gets
/// the patches it lacks with the first pixel it gains, one that has them loses them no
/// later than when what is left fits into its two largest.
struct FlipCertificate {
  std::int64_t least_px = 0;  ///< no smaller move of area changes the score
  int to_score = 0;           ///< 0..3: what `change_px` gives
  /// One such move: what each class gains (or loses, below 0); sums to 0. Going up is
  /// preferred where up and down cost the same; area comes from, or goes to, the nearest
  /// class that serves.
  std::array<std::int64_t, 4> change_px{};
};

/// @param areas  tumor area of class 0, 1+, 2+, 3+, px.
/// @return nothing where the areas sum to 0: there is no score to change.
/// @throws std::invalid_argument  as decide_guideline; two_largest_px outside [0, areas].
std::optional<FlipCertificate> flip_certificate(const std::array<std::int64_t, 4>& areas,
                                                std::string_view rule_set,
                                                const FlipOptions& options);

}  // namespace her2fast
