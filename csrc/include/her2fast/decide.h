// SPDX-License-Identifier: Apache-2.0
/// From a Measurement to a Decision: ROI, calibration, limits, guideline. Milliseconds,
/// no pixels.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "her2fast/bootstrap.h"
#include "her2fast/error.h"
#include "her2fast/flip.h"
#include "her2fast/guideline.h"
#include "her2fast/islands.h"
#include "her2fast/measurement.h"
#include "her2fast/roi.h"

namespace her2fast {

/// Quality limits; the one table (faults.md).
struct Limits {
  double tumor_probability = 0.5;  ///< a pixel is tumor at or above
  int keep_patch_percent =
      10;  ///< a patch is classified with strictly more tumor (Pham, 3.5)
  double min_tumor_mm2 = 0.1;    ///< less kept tumor is TOO_LITTLE_TUMOR
  double min_tissue_mm2 = 0.05;  ///< less tissue is NO_TISSUE
  int max_bad_tiles_percent =
      1;  ///< missing, or corrupt and warned, of the tiles the ROI needs
  int out_of_focus_percent = 20;  ///< more of the tissue sets OUT_OF_FOCUS
  int borderline_probability_percent =
      95;  ///< a reported score that fewer bootstrap replicates give is BORDERLINE
  double island_gap_um = 300;     ///< tissue nearer than this is one island: tears, fat
  double island_min_mm2 = 0.05;   ///< an island with less kept tumor is compared only if
  int island_min_percent = 10;    ///< it holds this share; small ones together as one
  int island_scores_apart = 2;    ///< islands with scores that far apart and
  int island_mix_apart_percent =  ///< so much of the area of other classes set
      40;                         ///< CONTROL_SUSPECTED; so do islands with
  int island_quiet_percent = 20;  ///< so much tissue that have no part in the score, and
  int island_means_apart_halves =
      3;  ///< two islands whose mean classes are so many halves of a class apart
};
inline constexpr Limits kLimits{};

/// The patch filter, for measuring and deciding alike.
constexpr bool keeps_patch(std::int64_t tumor_px, std::int64_t patch_px) {
  return 100 * tumor_px > kLimits.keep_patch_percent * patch_px * patch_px;
}

/// One factor and one offset per class on the fixed-point logits (Pham, Eq. 16 to 20;
/// P4).
struct Calibration {
  std::vector<std::int32_t> scale_q16;  ///< 65536 is 1; empty: all 1
  std::vector<std::int32_t> bias_q16;   ///< empty: all 0
};

/// How far from its training data a package still trusts itself (docs/design/domain.md).
struct DomainLimits {
  /// One per Measurement::distance_names, fixed point: a patch beyond any is outside.
  std::vector<std::int32_t> cut_q16;
  int max_share_permille = 200;  ///< more of the kept tumor outside sets OUT_OF_DOMAIN
};

struct DecideOptions {
  std::optional<std::string> rule_set =
      "asco-cap-2018";  ///< absent: areas only, no score
  int floor_percent = 1;
  std::optional<Ish> ish;
  Calibration calibration;
  std::vector<RoiPolygon> roi;
  bool check_stain = true;             ///< the method names H-DAB as its stain
  std::optional<DomainLimits> domain;  ///< absent: nothing is said of the domain
  int bootstrap_replicates = kBootstrapReplicates;  ///< 0: no intervals, never unsure
};

/// Kept tumor by how far its patches lie from the training data.
struct DomainFinding {
  std::int64_t outside_px = 0;  ///< tumor pixels in patches beyond any cut
  std::vector<std::int64_t>
      sum_q8_px;            ///< per distance: sum of distance * 256 * tumor pixels
  bool is_outside = false;  ///< more outside than the limits allow
};

struct Decision {
  Status status = Status::kFailed;
  std::optional<Code> code;
  std::string message;                         ///< why, in words; empty where scored
  std::optional<GuidelineDecision> guideline;  ///< only with `scored` and a rule set
  std::vector<std::int64_t> class_px;          ///< kept tumor pixels per class
  std::vector<std::int64_t> class_patches;
  std::int64_t kept_tumor_px = 0, dropped_tumor_px = 0, tissue_px = 0, roi_px = 0;
  std::int64_t out_of_focus_tissue_px = 0, focus_tissue_px = 0;
  std::int64_t tiles_total = 0, tiles_read = 0, tiles_missing = 0, tiles_corrupt = 0,
               tiles_warned = 0;
  StainCensus census;
  std::optional<FlipCertificate> flip;   ///< only with `guideline`
  std::optional<Bootstrap> bootstrap;    ///< only where scored, with blocks enough
  std::int32_t bootstrap_block_px = 0;   ///< side of a block on the working grid
  std::optional<IslandFinding> islands;  ///< only with `guideline` and no drawn region
  std::optional<DomainFinding> domain;  ///< only where scored, with DecideOptions::domain
  std::vector<std::string> review_flags;  ///< review reasons, sorted as in faults.md
  bool review_required = false;
};

/// @throws std::invalid_argument (calibration of another class count, a guideline without
/// four
///         classes); Error kRoiInvalid, kRoiOutside
Decision decide(const Measurement& measurement, const DecideOptions& options);

/// One classified patch as it counts in a decision.
struct PatchOutcome {
  std::int64_t column = 0, row = 0;  ///< on the patch grid
  std::uint32_t tumor_px = 0;        ///< inside the ROI
  bool kept = false;                 ///< more than keep_patch_percent inside the ROI
  std::int32_t predicted = -1;       ///< class after calibration; -1 where not kept
  std::vector<double> logits;        ///< calibrated; empty where not classified
};
/// Patches with tumor in the ROI, row by row of tiles. What maps, tables and regions are
/// drawn from.
std::vector<PatchOutcome> patch_outcomes(const Measurement& measurement,
                                         const DecideOptions& options);

}  // namespace her2fast
