// SPDX-License-Identifier: Apache-2.0
#include "her2fast/geometry.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/number_text.h"
#include "her2fast/error.h"

namespace her2fast {
namespace {

constexpr std::array<std::string_view, 4> kTileStatusNames{"ok", "warned", "corrupt",
                                                           "missing"};

// A slide of a square meter at 0.08 um/px has 12.5 million px a side; 2^26 leaves room.
constexpr std::int64_t kMaxSidePx = std::int64_t{1} << 26;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t floor_scaled(std::int64_t index, std::int64_t numerator,
                          std::int64_t denominator) {
  const __int128 product = static_cast<__int128>(index) * numerator;
  __int128 quotient = product / denominator;
  if (product % denominator < 0) --quotient;
  return static_cast<std::int64_t>(quotient);
}

}  // namespace

std::string spacing_range_text() {
  return short_text(kMinSpacingUm) + " to " + short_text(kMaxSpacingUm) + " um/px";
}

Spacing Spacing::from_um(double um) {
  if (!std::isfinite(um) || um <= 0.0 || um > 1e6) {
    throw std::invalid_argument("need a spacing in um/px above 0, got " + fixed_text(um));
  }
  return Spacing{std::llround(um * 1e6)};
}

void SlideFrame::check() const {
  if (width_px < 1 || height_px < 1 || width_px > kMaxSidePx || height_px > kMaxSidePx) {
    throw Error(Code::kLimitExceeded, "need 1 to " + std::to_string(kMaxSidePx) +
                                          " px a side, got " + std::to_string(width_px) +
                                          " x " + std::to_string(height_px));
  }
  for (const Spacing s : {spacing_x, spacing_y}) {
    if (s.um() < kMinSpacingUm || s.um() > kMaxSpacingUm) {
      throw Error(Code::kBadSpacing, "need a spacing of " + spacing_range_text() +
                                         ", got " + fixed_text(s.um()) +
                                         "; state the right one with --mpp");
    }
  }
}

std::int64_t SlideFrame::grid_width_px(Spacing working) const {
  return ceil_div(width_px * spacing_x.pm, working.pm);
}

std::int64_t SlideFrame::grid_height_px(Spacing working) const {
  return ceil_div(height_px * spacing_y.pm, working.pm);
}

std::int64_t SlideFrame::floor_x0_px(std::int64_t column, Spacing working) const {
  return floor_scaled(column, working.pm, spacing_x.pm);
}

std::int64_t SlideFrame::floor_y0_px(std::int64_t row, Spacing working) const {
  return floor_scaled(row, working.pm, spacing_y.pm);
}

std::string_view tile_status_name(TileStatus status) {
  return kTileStatusNames.at(static_cast<std::size_t>(status));
}

TileStatus parse_tile_status(std::string_view name) {
  for (std::size_t i = 0; i < kTileStatusNames.size(); ++i) {
    if (kTileStatusNames[i] == name) return static_cast<TileStatus>(i);
  }
  throw std::invalid_argument(
      "need a status \"ok\", \"warned\", \"corrupt\" or \"missing\", got \"" +
      std::string(name) + "\"");
}

}  // namespace her2fast
