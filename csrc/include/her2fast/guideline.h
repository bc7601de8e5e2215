// SPDX-License-Identifier: Apache-2.0
/// HER2 guidelines as exact integers: the only definition of cuts, floors and flags.
///
/// Sources and misreadings: docs/decisions/guidelines.md. Pure functions; thread-safe;
/// allocate only what they return.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace her2fast {

enum class Ish { kPositive, kNegative };

struct GuidelineOptions {
  int floor_percent = 1;  ///< 0 to 100; 0 switches the floor off
  std::optional<std::array<std::int64_t, 4>>
      patches;  ///< patches per class, for the floor of 3
  std::optional<Ish> ish;
  /// Cells whose membrane is moderate to intense and incomplete, where membranes were
  /// measured cell by cell at 0.5 um/px or finer; absent for areas, which show neither
  /// them nor faint membranes.
  std::optional<std::int64_t> unusual;
};

/// One cut of a rule set, as it fell.
struct Margin {
  std::string cut;          ///< "3+", "2+", "1+": the score this cut gives when passed
  std::int64_t area = 0;    ///< what is compared (cumulative where the rule set says so)
  std::int64_t margin = 0;  ///< 10 * area - N; 0 is on the cut
  bool passed = false;
};

struct GuidelineDecision {
  std::string rule_set;
  std::optional<int> score;        ///< 0..3; absent where nothing is evaluable (sum 0)
  std::vector<std::string> flags;  ///< ULTRALOW GUIDELINE_GAP BORDERLINE HETEROGENEOUS
                                   ///< UNUSUAL_PATTERN, in this order
  bool review_required = false;
  std::optional<std::string> alternative;  ///< "2+" with GUIDELINE_GAP
  std::optional<std::string> binary;  ///< "negative" | "positive"; absent: 2+ without ISH
  std::optional<std::string> three_way;  ///< "negative" | "equivocal" | "positive"
  std::optional<std::string> her2_view;  ///< "zero" | "low" | "high"
  std::string ihc0_membrane_staining;    ///< of score 0 with `unusual` given: "null" |
                                         ///< "ultralow"; else "not_assessable"
  std::vector<Margin> margins;           ///< from the highest cut down
};

struct RuleSetInfo {
  std::string name, title, source;
};

/// "0", "1+", "2+", "3+".
std::string_view score_name(int score);
/// The rule sets in the one visible array, the default first.
const std::vector<RuleSetInfo>& rule_sets();

/// @param areas  tumor area of class 0, 1+, 2+, 3+ in any one integer unit (pixels,
/// cells).
/// @throws std::invalid_argument  negative or >= 2^53 areas, unknown rule set, bad
/// options.
GuidelineDecision decide_guideline(const std::array<std::int64_t, 4>& areas,
                                   std::string_view rule_set,
                                   const GuidelineOptions& options);

}  // namespace her2fast
