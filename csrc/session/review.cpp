// SPDX-License-Identifier: Apache-2.0
#include "session/review.h"

#include <algorithm>
#include <cmath>

namespace her2fast {
namespace {

bool has_flag(const Decision& decision, const char* flag) {
  if (!decision.guideline) return false;
  const auto& flags = decision.guideline->flags;
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

/// Would the score often have been another with other tumor of the same slide?
bool is_unsure(const Decision& d) {
  if (!d.bootstrap || !d.guideline || !d.guideline->score) return false;
  const auto score = static_cast<std::size_t>(*d.guideline->score);
  return 100 * d.bootstrap->score_counts[score] <
         std::int64_t{kLimits.borderline_probability_percent} * d.bootstrap->replicates;
}

}  // namespace

ReviewEvidence::ReviewEvidence(const Measurement& measurement,
                               const DecideOptions& options)
    : m_(measurement),
      options_(options),
      columns_(measurement.tiles_x * measurement.patches_per_side()),
      rows_(measurement.tiles_y * measurement.patches_per_side()),
      // Who draws what to score has looked; who only takes something out may have left
      // the control in.
      looks_for_islands_(
          options.rule_set &&
          std::all_of(options.roi.begin(), options.roi.end(),
                      [](const RoiPolygon& polygon) { return polygon.exclude; })),
      largest_px_(measurement.class_names.size()) {
  if (looks_for_islands_) tissue_.assign(static_cast<std::size_t>(columns_ * rows_), 0);
}

void ReviewEvidence::add_tissue(std::int64_t column, std::int64_t row) {
  if (looks_for_islands_) tissue_[static_cast<std::size_t>(row * columns_ + column)] = 1;
}

void ReviewEvidence::add_kept(std::int64_t column, std::int64_t row,
                              std::int64_t tumor_px, std::size_t predicted) {
  kept_.push_back({static_cast<std::int32_t>(column), static_cast<std::int32_t>(row),
                   static_cast<std::uint32_t>(tumor_px),
                   static_cast<std::int32_t>(predicted)});
  auto& [first, second] = largest_px_[predicted];
  second = std::max(second, std::min(first, tumor_px));
  first = std::max(first, tumor_px);
  // A cut patch has its tissue prorated, which may fall below the rule for tissue.
  add_tissue(column, row);
}

void ReviewEvidence::judge(Decision& d) const {
  if (options_.bootstrap_replicates != 0) draw_blocks(d);
  if (!options_.rule_set) return;
  FlipOptions flip;
  flip.floor_percent = options_.floor_percent;
  flip.two_largest_px = std::array<std::int64_t, 4>{};
  std::array<std::int64_t, 4> areas{};
  for (std::size_t c = 0; c < 4; ++c) {
    areas[c] = d.class_px[c];
    (*flip.two_largest_px)[c] = largest_px_[c][0] + largest_px_[c][1];
  }
  d.flip = flip_certificate(areas, *options_.rule_set, flip);
  if (looks_for_islands_) d.islands = find_islands();
}

void ReviewEvidence::draw_blocks(Decision& d) const {
  const double patch_um = m_.spacing.um() * m_.patch_px;
  const auto side = std::max<std::int32_t>(
      1, static_cast<std::int32_t>(std::lround(kBootstrapBlockUm / patch_um)));
  const TumorBlocks blocks = tumor_blocks(kept_, m_.class_names.size(), side);
  d.bootstrap = bootstrap(blocks, options_.rule_set, options_.floor_percent,
                          options_.bootstrap_replicates);
  d.bootstrap_block_px = blocks.side_patches * m_.patch_px;
}

IslandFinding ReviewEvidence::find_islands() const {
  const double patch_um = m_.spacing.um() * m_.patch_px;
  const auto radius = static_cast<std::int32_t>(kLimits.island_gap_um / 2 / patch_um);
  std::vector<std::int32_t> labels(tissue_.size());
  const std::int32_t count = label_islands({tissue_.data(), rows_, columns_}, radius,
                                           {labels.data(), rows_, columns_});
  std::vector<Island> islands(static_cast<std::size_t>(count));
  for (const std::int32_t label : labels) {
    if (label >= 0) ++islands[static_cast<std::size_t>(label)].tissue;
  }
  for (const KeptPatch& patch : kept_) {
    const std::int64_t place = patch.row * columns_ + patch.column;
    Island& island =
        islands[static_cast<std::size_t>(labels[static_cast<std::size_t>(place)])];
    island.px[static_cast<std::size_t>(patch.predicted)] += patch.tumor_px;
    ++island.patches[static_cast<std::size_t>(patch.predicted)];
  }
  const IslandLimits limits{
      static_cast<std::int64_t>(std::ceil(kLimits.island_min_mm2 / m_.pixel_mm2())),
      kLimits.island_min_percent,
      kLimits.island_scores_apart,
      kLimits.island_mix_apart_percent,
      kLimits.island_quiet_percent,
      kLimits.island_means_apart_halves};
  return compare_islands(islands, *options_.rule_set, options_.floor_percent, limits);
}

std::vector<std::string> review_flags(const Decision& d) {
  std::vector<std::string> flags;
  const auto add_if = [&flags](bool is_set, const char* flag) {
    if (is_set) flags.emplace_back(flag);
  };
  add_if(has_flag(d, "BORDERLINE") || is_unsure(d), "BORDERLINE");
  add_if(has_flag(d, "GUIDELINE_GAP"), "GUIDELINE_GAP");
  add_if(d.islands && d.islands->suspected, "CONTROL_SUSPECTED");
  add_if(
      d.out_of_focus_tissue_px * 100 > kLimits.out_of_focus_percent * d.focus_tissue_px,
      "OUT_OF_FOCUS");
  add_if(d.domain && d.domain->is_outside, "OUT_OF_DOMAIN");
  add_if(has_flag(d, "HETEROGENEOUS"), "HETEROGENEOUS");
  add_if(has_flag(d, "UNUSUAL_PATTERN"), "UNUSUAL_PATTERN");
  return flags;
}

}  // namespace her2fast
