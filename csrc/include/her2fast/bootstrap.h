// SPDX-License-Identifier: Apache-2.0
/// How much the class fractions and the score depend on which tumor was on the slide: a
/// bootstrap over square blocks of tumor.
///
/// Neighboring patches are alike, so patches are not drawn one by one: square blocks are,
/// with replacement. docs/design/decide.md says what the interval covers and what it
/// cannot. Pure functions; thread-safe; blocks x replicates additions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace her2fast {

/// Side of a block to begin with; halved, down to one patch, until there are
/// kBootstrapMinBlocks. Blocks must be wide against the distance over which classes are
/// alike, more than they must be many (bench/bootstrap_coverage).
inline constexpr double kBootstrapBlockUm = 4000;
/// With fewer blocks nothing is said: so few draws would call anything certain.
inline constexpr std::size_t kBootstrapMinBlocks = 8;
/// Replicates unless asked otherwise.
inline constexpr int kBootstrapReplicates = 1000;
/// Replicates beyond each end of an interval: 25 in 1000 for 95 %, times (n - 7) / n for
/// n blocks. Percentiles of few blocks lie too near together by what the t distribution
/// has over the normal one (Hesterberg, Am Stat 2015;69:371-386, section 4.1); the factor
/// is that correction within 1 per mille from 12 blocks on, and wider below.
constexpr std::size_t bootstrap_tail(std::size_t replicates, std::size_t blocks) {
  return replicates * 25 * (blocks - 7) / (1000 * blocks);
}

/// One kept patch on the patch grid.
struct KeptPatch {
  std::int32_t column = 0, row = 0;
  std::uint32_t tumor_px = 0;
  std::int32_t predicted = 0;
};

/// Tumor pixels and patches per class and block, blocks row by row.
struct TumorBlocks {
  std::size_t classes = 0;
  std::int32_t side_patches = 0;
  std::vector<std::int64_t> sums;  ///< (blocks, 2 * classes): pixels, then patches
  std::size_t count() const { return classes == 0 ? 0 : sums.size() / (2 * classes); }
};

/// Blocks anchored at the slide's origin that hold kept tumor.
/// @param side_patches  side to begin with; halved while there are fewer than
///                      kBootstrapMinBlocks and it is above 1.
TumorBlocks tumor_blocks(const std::vector<KeptPatch>& patches, std::size_t classes,
                         std::int32_t side_patches);

struct Bootstrap {
  int replicates = 0;
  std::int64_t blocks = 0;
  std::vector<std::array<double, 2>> intervals;  ///< per class: 95 % of its fraction
  std::array<std::int64_t, 4> score_counts{};    ///< replicates per score; 0 with no rule
};

/// The block that draw number `draw` of `replicate` takes, of `blocks`: a function of its
/// arguments alone (splitmix64 of a counter), so that any order and machine draws alike.
std::size_t bootstrap_draw(std::uint64_t replicate, std::uint64_t draw,
                           std::size_t blocks);

/// Sums are integers; a fraction is one division of integers below 2^53.
/// @param rule_set  scores are counted for four classes and a rule set only.
/// @return nothing with fewer than kBootstrapMinBlocks blocks or no replicates.
/// @throws std::invalid_argument  replicates outside [0, 100000], an unknown rule set, a
///         block without tumor, a rule set without four classes.
std::optional<Bootstrap> bootstrap(const TumorBlocks& blocks,
                                   const std::optional<std::string>& rule_set,
                                   int floor_percent, int replicates);

}  // namespace her2fast
