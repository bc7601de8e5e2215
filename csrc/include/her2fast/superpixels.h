// SPDX-License-Identifier: Apache-2.0
/// Superpixels: SLIC (Achanta et al., TPAMI 2012;34:2274), as Khameneh et al. take them
/// in section 2.1; decisions.md K4.
///
/// The order of additions is fixed, multiplications and additions are never contracted,
/// and means come from integer sums: one picture has one answer on every machine.
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

struct SuperpixelRule {
  /// Side of the square that a superpixel would be, px.
  std::int32_t size_px = 16;
  /// How much `size_px` of distance weighs against CIELAB; larger is squarer.
  double compactness = 10.0;
  std::int32_t iterations = 10;
};

inline constexpr std::int32_t kMaxSuperpixelSidePx = 4096;  // of a picture
inline constexpr std::int32_t kMaxSuperpixelPx = 64;

/// Parts a picture into superpixels of similar color.
///
/// Centers begin on a grid of about `size_px`; a pixel goes to the center that is nearest
/// in color and place among those within 2 `size_px`, the first of equals; after the last
/// of the iterations pieces smaller than half a superpixel join the one before them.
/// @param rgb     (H, W, 3), 1 to kMaxSuperpixelSidePx a side.
/// @param labels  (H, W), every element is written: 0 to count - 1, in the order of the
///                superpixels' first pixels. Each is 4-connected.
/// @return  the count.
/// @throws std::invalid_argument  shapes or the rule are out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe. Scratch: 32 bytes a pixel, up to 160 + 32 size_px a superpixel (with it
/// 35 a pixel at 16 px, below 100 at 2 px), and 16 a pixel of the largest piece. No halo:
/// the picture is all there is, so who cuts a slide fixes where
/// (docs/design/epithelium.md).
std::int32_t superpixels(ImageView<const std::uint8_t> rgb, const SuperpixelRule& rule,
                         ImageView<std::int32_t> labels, Device device = Device::kCpu);

}  // namespace her2fast
