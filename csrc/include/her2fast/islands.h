// SPDX-License-Identifier: Apache-2.0
/// Tissue islands, and whether one of them looks like control tissue.
///
/// A strip of control tissue lies beside the patient's with glass between, and its class
/// mix is another. Without a drawn region nobody told them apart, so a score that rests
/// on both must not go out unflagged. Pure functions; thread-safe; linear in the patches.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "her2fast/image.h"

namespace her2fast {

/// Numbers the islands of a patch grid from 0 in the order of their first patch, row by
/// row; -1 where there is no tissue.
///
/// Every patch with tissue is widened to a square of `radius` patches on each side;
/// squares that overlap or share an edge are one island. So a gap of up to 2 * radius
/// empty patches is bridged along rows and columns.
/// @param tissue  (rows, columns); any value but 0 is tissue.
/// @param out     (rows, columns); every element is written.
/// @return how many.
/// @throws std::invalid_argument  other shapes, radius outside [0, 4096].
std::int32_t label_islands(ImageView<const std::uint8_t> tissue, std::int32_t radius,
                           ImageView<std::int32_t> out);

/// Kept tumor of one island, and how many patches of tissue it has.
struct Island {
  std::array<std::int64_t, 4> px{}, patches{};
  std::int64_t tissue = 0;
  std::int64_t total() const { return px[0] + px[1] + px[2] + px[3]; }
};

/// What decide() takes from kLimits, where each has its one definition.
struct IslandLimits {
  std::int64_t min_px = 0;     ///< an island with at least this much tumor is compared
  int min_percent = 0;         ///< or with this share of all; smaller ones as one
  int scores_apart = 0;        ///< scores that far apart are not one tumor's
  int mix_apart_percent = 0;   ///< and so much of the area is of other classes
  int quiet_percent = 0;       ///< of the tissue in islands that do not share the score
  int means_apart_halves = 0;  ///< mean classes, in halves of a class
};

struct IslandFinding {
  bool suspected = false;
  std::int64_t islands = 0;  ///< with kept tumor
  /// Kept tumor of the compared islands by the score that each has alone.
  std::array<std::int64_t, 4> score_px{};
};

/// Suspected where (a) islands put together by the score that each has alone are
/// `scores_apart` or more apart and `mix_apart_percent` different in mix, or (b) an
/// island with at most half of the tumor moves the slide's score that far by being there,
/// or two large ones lie `means_apart_halves` apart in the mean class, or (c) islands
/// with `quiet_percent` of the tissue hold no tumor, or tumor that scores that far below
/// the slide.
/// @throws std::invalid_argument  an unknown rule set.
IslandFinding compare_islands(const std::vector<Island>& islands,
                              std::string_view rule_set, int floor_percent,
                              const IslandLimits& limits);

}  // namespace her2fast
