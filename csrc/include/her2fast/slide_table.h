// SPDX-License-Identifier: Apache-2.0
/// Patches of many slides in one table, and the limits that a slide's label puts on its
/// class fractions (Pham et al., Eq. 3 to 6). Values; immutable; the host owns the
/// memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace her2fast {

inline constexpr int kScores = 4;  ///< 0, 1+, 2+, 3+
/// A slide's tumor pixels stay under it: thousandths, times four classes, fit 64 bits.
inline constexpr std::int64_t kMaxSlidePx = std::int64_t{1} << 50;

/// Slide i holds the patches [offsets[i], offsets[i + 1]).
struct SlideTable {
  std::span<const float> logits;            ///< (patches, 4), finite
  std::span<const std::uint32_t> tumor_px;  ///< (patches)
  std::span<const std::int64_t> offsets;    ///< (slides + 1), from 0 up to patches
  std::span<const std::int64_t> labels;     ///< (slides), 0 to 3

  std::int64_t patches() const { return static_cast<std::int64_t>(tumor_px.size()); }
  std::int64_t slides() const { return static_cast<std::int64_t>(labels.size()); }
};

/// L and U in thousandths of a slide's tumor area, so that every comparison is exact.
struct FractionLimits {
  /// L[Y][Y]: a slide of label Y needs at least this of class Y; 0 to 1000, 0 is off.
  std::array<std::int32_t, kScores> lower_permille;
  /// U[Y][c]: it must have less than this of class c. Only c > Y is read (the zeros on
  /// and under the diagonal of Eq. 3 would break every slide); 1 to 1001, 1001 is off.
  std::array<std::array<std::int32_t, kScores>, kScores> upper_permille;

  /// The paper's: 70 % for label 0, 10 % for the others; every higher class under 10 %.
  static FractionLimits pham();
};

/// @throws std::invalid_argument  a shape, an offset, a label or a slide's sum (2^50 px)
/// is wrong. Logits are not looked at.
void check_table(const SlideTable& table);
/// @throws std::invalid_argument  a limit is out of its range.
void check_limits(const FractionLimits& limits);

}  // namespace her2fast
