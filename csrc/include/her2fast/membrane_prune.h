// SPDX-License-Identifier: Apache-2.0
/// Takes spurs off a membrane mask (Khameneh et al., Fig. 8c: "morphology pruning").
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// Membrane up to 2 * 6 + 1 px wide has a centerline: 3 um at 0.25 um/px, where 3+
/// membranes are 2.1 +- 0.4 um wide (decisions.md). What is wider is left as it is.
constexpr std::int32_t kPruneHalfWidthPx = 6;
constexpr std::int32_t kPruneMaxLengthPx = 64;

/// Pixels further away than this change nothing: thinning, peeling, growing back, width.
constexpr std::int32_t prune_reach_px(std::int32_t length_px) {
  return 4 * kPruneHalfWidthPx + 3 * length_px + 1;
}

/// A spur is a branch of the membrane with a free end whose centerline, from there to
/// where it joins the rest, is at most `length_px` long. Longer branches keep their whole
/// length, and so does a membrane that hangs on nothing: it is no spur but an incomplete
/// membrane, which is what a class 1+ cell has.
///
/// Local: a pixel depends on what lies within `prune_reach_px(length_px)` of it, so parts
/// with that much round them give the whole, for every tiling. Beyond the mask is none.
///
/// @param mask       (H, W), any value but 0 is membrane. 1 <= H, W <= 16384.
/// @param length_px  1 to kPruneMaxLengthPx; 0 copies the mask as 0 and 1.
/// @param out        (H, W), 0 or 1; nothing is set that was not.
/// @throws std::invalid_argument  a shape or `length_px` is out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe.
void membrane_prune(ImageView<const std::uint8_t> mask, std::int32_t length_px,
                    ImageView<std::uint8_t> out, Device device = Device::kCpu);

}  // namespace her2fast
