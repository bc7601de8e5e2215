// SPDX-License-Identifier: Apache-2.0
/// Spacings, the working grid, and requests for pixels on it.
///
/// Frames: level-0 pixels (x right, y down, half-open) are what is stored; a grid pixel
/// (i, j) at spacing s covers level-0 [i*s/sx, (i+1)*s/sx) x [j*s/sy, (j+1)*s/sy). The
/// grid starts at the level-0 origin, never at a region of interest. Spacings are held as
/// whole picometers (1e-6 um), so ratios are exact rationals and every compiler gives the
/// same pixels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace her2fast {

inline constexpr double kMinSpacingUm =
    0.08;  // design.md, frames: accepted level-0 spacings
inline constexpr double kMaxSpacingUm = 2.0;
/// "0.08 to 2 um/px", for messages.
std::string spacing_range_text();

/// A spacing in picometers per pixel; 1 um/px = 1'000'000.
struct Spacing {
  std::int64_t pm = 0;
  static Spacing from_um(
      double um);  ///< @throws std::invalid_argument unless finite and > 0
  double um() const { return static_cast<double>(pm) / 1e6; }
  bool operator==(const Spacing&) const = default;
};

/// Extent and spacing of level 0, x and y apart.
struct SlideFrame {
  std::int64_t width_px = 0;
  std::int64_t height_px = 0;
  Spacing spacing_x;
  Spacing spacing_y;

  /// @throws Error kBadSpacing, kLimitExceeded
  void check() const;
  /// Grid pixels needed to cover the slide at `working`, rounded up.
  std::int64_t grid_width_px(Spacing working) const;
  std::int64_t grid_height_px(Spacing working) const;
  /// Level-0 floor of the left (top) edge of grid column (row) i.
  std::int64_t floor_x0_px(std::int64_t column, Spacing working) const;
  std::int64_t floor_y0_px(std::int64_t row, Spacing working) const;
  bool operator==(const SlideFrame&) const = default;
};

/// A rectangle of grid pixels at one spacing. x_px and y_px may be negative (halo) and
/// the rectangle may reach beyond the slide: what lies outside is white.
struct ReadRequest {
  std::int64_t id = 0;
  std::int64_t x_px = 0;
  std::int64_t y_px = 0;
  std::int64_t width_px = 0;
  std::int64_t height_px = 0;
  Spacing spacing;
};

/// How a request was answered. Beyond-the-slide is not missing; it is white.
enum class TileStatus : std::uint8_t { kOk = 0, kWarned = 1, kCorrupt = 2, kMissing = 3 };

std::string_view tile_status_name(
    TileStatus status);  ///< "ok", "warned", "corrupt", "missing"
/// @throws std::invalid_argument
TileStatus parse_tile_status(std::string_view name);

}  // namespace her2fast
