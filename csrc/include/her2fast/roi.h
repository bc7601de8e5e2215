// SPDX-License-Identifier: Apache-2.0
/// Regions of interest: polygons in level-0 pixels, read onto the working grid.
///
/// Thread-safe (immutable values). A grid pixel counts where its center is inside; a polygon's rings
/// (outer and holes) are even-odd; the region is the union of the included polygons less the union
/// of the excluded ones. No included polygon: everything is included.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/geometry.h"

namespace her2fast {

struct RoiPoint {
  double x0_px = 0;
  double y0_px = 0;
};

struct RoiPolygon {
  std::vector<std::vector<RoiPoint>> rings;  ///< closed implicitly
  bool exclude = false;                      ///< subtracted (Ignore*, Exclude, Control)
};

class Roi {
 public:
  Roi() = default;  ///< the whole slide
  /// @throws Error kRoiInvalid  a ring under three points, or a coordinate that is not finite
  Roi(std::vector<RoiPolygon> polygons, const SlideFrame& frame, Spacing working);

  bool is_whole_slide() const { return polygons_.empty(); }
  /// Sets the bits of the covered pixels of one grid row: bit (x - x_begin_px) of `words` for
  /// x in [x_begin_px, x_end_px), 64 a word, least significant first. Every word is written.
  void cover_row(std::int64_t y_px, std::int64_t x_begin_px, std::int64_t x_end_px,
                 std::uint64_t* words) const;

 private:
  struct Edge {
    double x_top, y_top, y_bottom, slope;  // grid px; y_top < y_bottom
  };
  struct Shape {
    std::vector<Edge> edges;               // by y_top
    std::vector<std::vector<std::uint32_t>> bands;  // edges that touch rows [k*kBandRows, ...)
    std::int64_t y_begin = 0, y_end = 0;   // rows it may cover
    bool exclude = false;
  };
  static constexpr std::int64_t kBandRows = 64;
  std::vector<Shape> polygons_;
  bool has_included_ = false;
};

}  // namespace her2fast
