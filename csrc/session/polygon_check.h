// SPDX-License-Identifier: Apache-2.0
/// Whether a drawn polygon is one: simple rings, holes inside their outline.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "her2fast/roi.h"

namespace her2fast {

/// Why the rings are no simple polygon, in words with a place; nothing where they are.
///
/// A ring may not cross, touch or run back along itself; two rings may touch in points
/// but not cross or share a line; a hole lies in the outline and in no other hole.
/// Arithmetic is double: outlines that miss each other by less than a millionth of a
/// pixel count either way. Work is bounded; what exceeds it is called too tangled.
std::optional<std::string> why_not_simple(
    const std::vector<std::vector<RoiPoint>>& rings);

/// Twice the area of the ring, positive or 0.
double twice_area(const std::vector<RoiPoint>& ring);

/// The ring cut to [0, width] x [0, height]; where it leaves and returns, its sides run
/// along the border, which leaves its area right.
std::vector<RoiPoint> clip_to(const std::vector<RoiPoint>& ring, double width,
                              double height);

}  // namespace her2fast
