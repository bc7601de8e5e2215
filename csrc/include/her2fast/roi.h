// SPDX-License-Identifier: Apache-2.0
/// Regions of interest: polygons in level-0 pixels, read onto the working grid.
///
/// Thread-safe (immutable values). A grid pixel counts where its center is inside; a
/// polygon's rings (outer and holes) are even-odd; the region is the union of the
/// included polygons less the union of the excluded ones. No included polygon: everything
/// is included.
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

struct RoiSpan {
  std::int64_t begin_px = 0, end_px = 0;
  bool operator==(const RoiSpan&) const = default;
};

class Roi {
 public:
  Roi() = default;  ///< the whole slide
  /// @throws Error kRoiInvalid  a ring under three points, or a coordinate that is not
  /// finite
  Roi(std::vector<RoiPolygon> polygons, const SlideFrame& frame, Spacing working);

  bool is_whole_slide() const { return shapes_.empty(); }
  /// The covered columns of one grid row within [0, width_px), as disjoint ascending
  /// [begin, end).
  void row_spans(std::int64_t y_px, std::int64_t width_px,
                 std::vector<RoiSpan>& spans) const;

 private:
  struct Edge {
    double x_top, y_top, y_bottom, slope;  // grid px; y_top < y_bottom
  };
  struct Shape {
    std::vector<Edge> edges;
    std::int64_t first_band = 0;
    std::vector<std::vector<std::uint32_t>> bands;  // edges that touch a band of rows
    bool exclude = false;
  };
  std::vector<Shape> shapes_;
  bool has_included_ = false;
};

}  // namespace her2fast
