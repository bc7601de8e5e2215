// SPDX-License-Identifier: Apache-2.0
/// What membrane_label leaves for membrane_merge. Coordinates are the tile's.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "her2fast/membrane.h"

namespace her2fast {

/// Pixel in raster order: (y << 32) | x, both below 2^31.
using PixelKey = std::int64_t;
constexpr PixelKey pixel_key(std::int32_t y, std::int32_t x) {
  return (static_cast<PixelKey>(y) << 32) | x;
}
constexpr std::int32_t key_x(PixelKey key) {
  return static_cast<std::int32_t>(key & 0x7fffffff);
}
constexpr std::int32_t key_y(PixelKey key) {
  return static_cast<std::int32_t>(key >> 32);
}

constexpr PixelBox unite(const PixelBox& a, const PixelBox& b) {
  return {a.x0 < b.x0 ? a.x0 : b.x0, a.y0 < b.y0 ? a.y0 : b.y0, a.x1 > b.x1 ? a.x1 : b.x1,
          a.y1 > b.y1 ? a.y1 : b.y1};
}
constexpr PixelBox moved(const PixelBox& box, std::int32_t x, std::int32_t y) {
  return {box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y};
}

/// Counts over 2 x 2 windows; each window belongs to the one membrane that it touches.
struct WindowCounts {
  std::int64_t straight = 0;  ///< windows with two pixels side by side
  std::int64_t diagonal = 0;  ///< with one or three, and twice those with two across
  std::int64_t euler4 = 0;    ///< 4 * Euler number: one - three - 2 * across

  void operator+=(const WindowCounts& other) {
    straight += other.straight;
    diagonal += other.diagonal;
    euler4 += other.euler4;
  }
  void add_window(bool top_left, bool top_right, bool bottom_left, bool bottom_right) {
    const int set = top_left + top_right + bottom_left + bottom_right;
    const bool across = set == 2 && top_left == bottom_right;
    straight += set == 2 && !across;
    diagonal += (set == 1) + (set == 3) + 2 * across;
    euler4 += (set == 1) - (set == 3) - 2 * across;
  }
};

using DensityHistogram = std::array<std::uint32_t, kDensityBins>;

/// Integers of one membrane, or of the part of it within a tile.
struct MembraneSums {
  PixelKey first;
  PixelBox box;
  std::int64_t px = 0;
  WindowCounts windows;
  std::int32_t nuclei = 0;  ///< of a gap

  void operator+=(const MembraneSums& other) {
    first = other.first < first ? other.first : first;
    box = unite(box, other.box);
    px += other.px;
    windows += other.windows;
    nuclei += other.nuclei;
  }
};

/// A part of what is not mask.
struct GapSums {
  PixelKey first;
  PixelBox box;
  std::int64_t px = 0;
  std::int32_t nuclei = 0;
};

/// The figures of a finished membrane, from its integers.
/// @param histogram  or nullptr without densities.
Membrane describe_membrane(const MembraneSums& sums, const DensityHistogram* histogram,
                           std::int64_t compartments, std::int64_t enclosed_px);

/// Stretch of a tile's side: i for open membrane i, ~i for gap i. It ends before pixel
/// `end`; the two kinds take turns.
struct SidePart {
  std::int32_t end, label;
  bool operator==(const SidePart&) const = default;
};

enum Side : int { kTop = 0, kRight = 1, kBottom = 2, kLeft = 3 };

struct TileLabels {
  std::int32_t width = 0, height = 0;
  bool has_density = false;

  /// Finished within the tile, and what they enclose.
  std::vector<Membrane> inner;
  std::vector<Compartment> inner_compartments;

  /// Membranes on the tile's border, and their histograms where there are densities.
  std::vector<MembraneSums> open;
  std::vector<DensityHistogram> histograms;
  /// Compartments within the tile whose membrane is open, and its index.
  std::vector<GapSums> enclosed;
  std::vector<std::int32_t> enclosed_by;

  /// Gaps on the tile's border; the open membrane above the first pixel of each, -1 if
  /// that pixel lies in the tile's first row.
  std::vector<GapSums> gaps;
  std::vector<std::int32_t> gap_above;

  /// Left to right and top to bottom.
  std::array<std::vector<SidePart>, 4> sides;
};

}  // namespace her2fast
