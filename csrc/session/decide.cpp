// SPDX-License-Identifier: Apache-2.0
#include "her2fast/decide.h"

#include <algorithm>
#include <stdexcept>

#include "core/number_text.h"
#include "her2fast/focus.h"
#include "session/domain.h"
#include "session/review.h"
#include "session/roi_walk.h"

namespace her2fast {
namespace {

std::string limit_text(double mm2) { return short_text(mm2) + " mm2"; }

std::string mm2_text(std::int64_t px, double pixel_mm2) {
  return fixed_text(static_cast<double>(px) * pixel_mm2, 4) + " mm2";
}

/// Calibrated logits as integers: fixed point times a factor of 1/65536, plus an offset.
class Scale {
 public:
  Scale(const Calibration& calibration, std::size_t classes)
      : factor_(calibration.scale_q16), offset_(calibration.bias_q16), classes_(classes) {
    const auto fits = [classes](const std::vector<std::int32_t>& v) {
      return v.empty() || v.size() == classes;
    };
    if (!fits(factor_) || !fits(offset_)) {
      throw std::invalid_argument("need a calibration for " + std::to_string(classes) +
                                  " classes, got " + std::to_string(factor_.size()) +
                                  " factors and " + std::to_string(offset_.size()) +
                                  " offsets");
    }
    if (std::any_of(factor_.begin(), factor_.end(),
                    [](std::int32_t f) { return f <= 0; })) {
      throw std::invalid_argument("need calibration factors above 0 (Pham, Eq. 17; P4)");
    }
    factor_.resize(classes, 1 << 16);
    offset_.resize(classes, 0);
  }
  std::int64_t at(const std::int32_t* logits, std::size_t c) const {
    return static_cast<std::int64_t>(logits[c]) * factor_[c] +
           (static_cast<std::int64_t>(offset_[c]) << 16);
  }
  /// Equal classes: the lower one, so that a tie never raises a score.
  std::int32_t predict(const std::int32_t* logits) const {
    std::size_t best = 0;
    for (std::size_t c = 1; c < classes_; ++c) {
      if (at(logits, c) > at(logits, best)) best = c;
    }
    return static_cast<std::int32_t>(best);
  }

 private:
  std::vector<std::int32_t> factor_, offset_;
  std::size_t classes_;
};

/// Where a slot's outputs stand in its tile, or nothing where it was not classified.
std::optional<std::size_t> place_of(const TileRecord& tile, std::size_t slot) {
  const auto found = std::lower_bound(tile.slots.begin(), tile.slots.end(), slot);
  if (found == tile.slots.end() || *found != slot) return std::nullopt;
  return static_cast<std::size_t>(found - tile.slots.begin());
}

Roi make_roi(const Measurement& m, const DecideOptions& options) {
  return options.roi.empty() ? Roi() : Roi(options.roi, m.frame, m.spacing);
}

void end_with(Decision& decision, Code code, const std::string& message) {
  decision.code = code;
  decision.status = code_status(code);
  decision.message = message;
}

/// Quality limits in the order in which a reader would ask; sets status, code and
/// message.
void apply_limits(const Measurement& m, const DecideOptions& options,
                  std::int64_t tissue_tiles, const StainCensus& slide_census,
                  Decision& d) {
  const double mm2 = m.pixel_mm2();
  const std::int64_t corrupt = d.tiles_corrupt + d.tiles_warned;
  const auto above_limit = [&](std::int64_t bad) {
    return bad * 100 > kLimits.max_bad_tiles_percent *
                           (tissue_tiles + d.tiles_missing + d.tiles_corrupt);
  };
  const std::string of = " of " + std::to_string(d.tiles_total) + " tiles";
  if (options.check_stain && is_wrong_stain(slide_census)) {
    end_with(d, Code::kWrongStain,
             "the colors are not hematoxylin and DAB (H&E, fluorescence or another "
             "stain); use a "
             "method made for this stain");
  } else if (d.tiles_missing > 0 && above_limit(d.tiles_missing)) {
    end_with(d, Code::kMissingTiles,
             std::to_string(d.tiles_missing) + of +
                 " are missing; scan or copy the slide again");
  } else if (corrupt > 0 && above_limit(corrupt)) {
    end_with(d, Code::kCorruptTiles,
             std::to_string(corrupt) + of + " are damaged; copy the slide again");
  } else if (static_cast<double>(d.tissue_px) * mm2 < kLimits.min_tissue_mm2) {
    end_with(d, Code::kNoTissue,
             "tissue found: " + mm2_text(d.tissue_px, mm2) + ", need " +
                 limit_text(kLimits.min_tissue_mm2));
  } else if (d.kept_tumor_px + d.dropped_tumor_px == 0) {
    end_with(d, Code::kNoTumor,
             "no tumor found in " + mm2_text(d.tissue_px, mm2) + " of tissue");
  } else if (static_cast<double>(d.kept_tumor_px) * mm2 < kLimits.min_tumor_mm2) {
    end_with(d, Code::kTooLittleTumor,
             "tumor kept: " + mm2_text(d.kept_tumor_px, mm2) + ", need " +
                 limit_text(kLimits.min_tumor_mm2));
  } else {
    d.status = Status::kScored;
  }
}

}  // namespace

Decision decide(const Measurement& m, const DecideOptions& options) {
  const std::size_t classes = m.class_names.size();
  if (options.rule_set && classes != 4) {
    throw std::invalid_argument("a guideline needs the four classes 0, 1+, 2+, 3+, got " +
                                std::to_string(classes) + "; set the guideline to none");
  }
  // A wrong option is wrong whatever the slide holds: ask the engine before anything is
  // counted.
  if (options.rule_set) {
    GuidelineOptions probe;
    probe.floor_percent = options.floor_percent;
    decide_guideline({1, 0, 0, 0}, *options.rule_set, probe);
  }
  const Scale scale(options.calibration, classes);
  const Roi roi = make_roi(m, options);
  Decision d;
  d.class_px.assign(classes, 0);
  d.class_patches.assign(classes, 0);
  StainCensus slide_census;
  for (const TileRecord& tile : m.tiles) slide_census += tile.census;

  std::int64_t tissue_tiles = 0;
  ReviewEvidence evidence(m, options);
  DomainEvidence domain(m, options.domain);
  const std::int64_t side = m.patches_per_side();
  RoiWalker walker(m, roi);
  TileInRoi tile;
  while (walker.next(tile)) {
    const TileRecord& record = *tile.record;
    const std::int64_t first_column = tile.index % m.tiles_x * side;
    const std::int64_t first_row = tile.index / m.tiles_x * side;
    ++d.tiles_total;
    d.tiles_read +=
        record.status == TileStatus::kOk || record.status == TileStatus::kWarned;
    d.tiles_missing += record.status == TileStatus::kMissing;
    d.tiles_corrupt += record.status == TileStatus::kCorrupt;
    d.tiles_warned += record.status == TileStatus::kWarned;
    tissue_tiles += record.census.tissue > 0;
    d.roi_px += tile.covered_px;
    d.census += record.census;
    for (std::size_t slot = 0; slot < tile.tissue_px.size(); ++slot) {
      const std::int64_t tissue = tile.tissue_px[slot];
      d.tissue_px += tissue;
      if (keeps_patch(tissue, m.patch_px)) {
        evidence.add_tissue(first_column + static_cast<std::int64_t>(slot) % side,
                            first_row + static_cast<std::int64_t>(slot) / side);
      }
      if (record.focus[slot] > 0) {
        d.focus_tissue_px += tissue;
        if (record.focus[slot] < kFocusLimit) d.out_of_focus_tissue_px += tissue;
      }
    }
    for (std::size_t slot = 0; slot < tile.tumor_px.size(); ++slot) {
      const std::int64_t tumor = tile.tumor_px[slot];
      if (!keeps_patch(tumor, m.patch_px)) {
        d.dropped_tumor_px += tumor;
        continue;
      }
      const std::optional<std::size_t> place = place_of(record, slot);
      if (!place) {
        throw Error(Code::kBadHeader,
                    "measurement: a patch with tumor was never classified; "
                    "score the slide again");
      }
      const auto predicted = static_cast<std::size_t>(
          scale.predict(record.logits.data() + *place * classes));
      d.class_px[predicted] += tumor;
      ++d.class_patches[predicted];
      d.kept_tumor_px += tumor;
      domain.add_kept(record.distances.data() + *place * m.distance_names.size(), tumor);
      evidence.add_kept(first_column + static_cast<std::int64_t>(slot) % side,
                        first_row + static_cast<std::int64_t>(slot) / side, tumor,
                        predicted);
    }
  }
  if (d.roi_px == 0) {
    throw Error(Code::kRoiOutside,
                "the region of interest covers no pixel of the slide (" +
                    std::to_string(m.frame.width_px) + " x " +
                    std::to_string(m.frame.height_px) +
                    " level-0 px); check that it was drawn on this slide");
  }
  apply_limits(m, options, tissue_tiles, slide_census, d);
  if (d.status != Status::kScored) return d;

  if (options.rule_set) {
    GuidelineOptions guideline;
    guideline.floor_percent = options.floor_percent;
    guideline.ish = options.ish;
    guideline.patches = std::array<std::int64_t, 4>{};
    std::array<std::int64_t, 4> areas{};
    std::copy(d.class_px.begin(), d.class_px.end(), areas.begin());
    std::copy(d.class_patches.begin(), d.class_patches.end(), guideline.patches->begin());
    d.guideline = decide_guideline(areas, *options.rule_set, guideline);
  }
  evidence.judge(d);
  d.domain = domain.judge(d.kept_tumor_px);
  d.review_flags = review_flags(d);
  d.review_required = !d.review_flags.empty();
  return d;
}

std::vector<PatchOutcome> patch_outcomes(const Measurement& m,
                                         const DecideOptions& options) {
  const std::size_t classes = m.class_names.size();
  const Scale scale(options.calibration, classes);
  const Roi roi = make_roi(m, options);
  const std::int64_t side = m.patches_per_side();
  std::vector<PatchOutcome> outcomes;
  RoiWalker walker(m, roi);
  TileInRoi tile;
  while (walker.next(tile)) {
    for (std::size_t slot = 0; slot < tile.tumor_px.size(); ++slot) {
      if (tile.tumor_px[slot] == 0) continue;
      PatchOutcome outcome;
      outcome.column =
          tile.index % m.tiles_x * side + static_cast<std::int64_t>(slot) % side;
      outcome.row =
          tile.index / m.tiles_x * side + static_cast<std::int64_t>(slot) / side;
      outcome.tumor_px = tile.tumor_px[slot];
      outcome.kept = keeps_patch(outcome.tumor_px, m.patch_px);
      if (const auto place = place_of(*tile.record, slot)) {
        const std::int32_t* logits = tile.record->logits.data() + *place * classes;
        for (std::size_t c = 0; c < classes; ++c) {
          // 2^-32: 16 fraction bits of the logit, 16 of the factor.
          outcome.logits.push_back(static_cast<double>(scale.at(logits, c)) * 0x1p-32);
        }
        if (outcome.kept) outcome.predicted = scale.predict(logits);
      }
      outcomes.push_back(std::move(outcome));
    }
  }
  return outcomes;
}

}  // namespace her2fast
