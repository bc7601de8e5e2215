// SPDX-License-Identifier: Apache-2.0
/// How sure a decision is: what decide() gathers from the patches beside their sums, and
/// what it makes of that.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "her2fast/bootstrap.h"
#include "her2fast/decide.h"

namespace her2fast {

/// Collects the patches of one decision and judges them at the end.
class ReviewEvidence {
 public:
  ReviewEvidence(const Measurement& measurement, const DecideOptions& options);

  /// A patch with more than kLimits.keep_patch_percent of tissue.
  void add_tissue(std::int64_t column, std::int64_t row);
  void add_kept(std::int64_t column, std::int64_t row, std::int64_t tumor_px,
                std::size_t predicted);

  /// Fills flip, bootstrap and islands of a scored decision.
  void judge(Decision& decision) const;

 private:
  void draw_blocks(Decision& decision) const;
  IslandFinding find_islands() const;

  const Measurement& m_;
  const DecideOptions& options_;
  std::int64_t columns_, rows_;
  bool looks_for_islands_;
  std::vector<std::uint8_t> tissue_;  // (rows, columns), only where islands are sought
  std::vector<KeptPatch> kept_;
  std::vector<std::array<std::int64_t, 2>> largest_px_;  // per class, the larger first
};

/// The review flags of a scored decision in the order of faults.md.
std::vector<std::string> review_flags(const Decision& decision);

}  // namespace her2fast
