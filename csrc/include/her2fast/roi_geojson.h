// SPDX-License-Identifier: Apache-2.0
/// Regions of interest from GeoJSON, as QuPath writes it, in level-0 pixels.
///
/// A FeatureCollection, a list of Features (older QuPath), a Feature or a bare geometry;
/// Polygon or MultiPolygon. Features whose classification or name is `Exclude` or
/// `Control`, or begins with `Ignore` (any case), are subtracted. Whatever is doubtful is
/// refused with the place, never repaired: a mended outline is not the one that the
/// pathologist drew. Pure functions; thread-safe; bounded work and memory.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "her2fast/roi.h"

namespace her2fast {

// A day's drawing is some hundred kB; beyond these a text is no drawing.
inline constexpr std::size_t kMaxRoiBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxRoiVertices = 2'000'000;
/// Far beyond any slide, and far below where level-0 arithmetic could wrap.
inline constexpr double kMaxRoiCoordinatePx = 1e9;

/// @param geojson  UTF-8 text
/// @throws Error kRoiInvalid with the feature and the place; also where it holds no
///         polygon
std::vector<RoiPolygon> parse_roi(std::string_view geojson);

/// Refuses polygons of which no area lies on the slide: such a one was drawn in another
/// frame, and then so were the others.
/// @throws Error kRoiOutside
void check_roi_inside(const std::vector<RoiPolygon>& roi, const SlideFrame& frame);

}  // namespace her2fast
