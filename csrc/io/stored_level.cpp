// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/number_text.h"
#include "her2fast/error.h"
#include "her2fast/tile_reader.h"

namespace her2fast {
namespace {

std::optional<ReadPlan> plan_if_any(const Slide& slide, const SlideFrame& frame,
                                    Spacing target, ReadingMode mode) {
  try {
    return plan_read(slide, frame, target, mode);
  } catch (const Error&) {
    return std::nullopt;  // no level is fine enough: measuring says so with its code
  }
}

double spacing_um(Spacing level0, std::int64_t num, std::int64_t den) {
  return level0.um() * static_cast<double>(num) / static_cast<double>(den);
}

}  // namespace

std::optional<std::string> stored_level_warning(const Slide& slide,
                                                const SlideFrame& frame, Spacing target,
                                                ReadingMode mode) {
  const std::optional<ReadPlan> plan = plan_if_any(slide, frame, target, mode);
  if (!plan || plan->level == 0) return std::nullopt;
  const Level& level = slide.info().levels[static_cast<std::size_t>(plan->level)];
  const double um =
      std::max(spacing_um(frame.spacing_x, level.down_x_num, level.down_x_den),
               spacing_um(frame.spacing_y, level.down_y_num, level.down_y_den));
  // What can be decoded at a half is JPEG.
  if (!slide.can_scale(plan->level, 2)) return std::nullopt;
  return stored_level_warning(um, target);
}

std::optional<std::string> stored_level_warning(double level_um, Spacing target) {
  if (2 * level_um <= target.um()) return std::nullopt;
  return "tiles are read from a level stored at " + short_text(level_um, 3) +
         " um/px, compressed by JPEG at that spacing: class areas can differ by several "
         "percent points from those of the scanner's pixels; reading \"level0\" is "
         "nearer to them";
}

}  // namespace her2fast
