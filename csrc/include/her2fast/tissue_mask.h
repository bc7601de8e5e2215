// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// The color of empty glass.
struct Rgb {
  std::uint8_t r = 255, g = 255, b = 255;
};

/// A pixel's answer depends on no pixel further away than this, so a tile with this much
/// halo gives the same mask as the whole slide. At most the default halo of 32 px.
inline constexpr std::int32_t kTissueReachPx = 16;

/// Tissue (1) or not (0) at every pixel, by fixed optical-density thresholds against
/// `white`.
///
/// Keeps pale 0/1+ IHC tissue and DAB-heavy tissue; pen ink (blue, green, red, black),
/// dust and empty glass are not tissue. Meant for 0.5 to 2 um/px.
/// @param rgb  (H, W, 3), host memory.
/// @param out  (H, W), host memory; every element is written, 0 or 1.
/// @throws std::invalid_argument  shapes differ, not 3 channels, a white point below 128.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe; allocates scratch of a few bytes a pixel. Integers only: every device
/// gives the same bits.
void tissue_mask(ImageView<const std::uint8_t> rgb, Rgb white,
                 ImageView<std::uint8_t> out, Device device = Device::kCpu);

}  // namespace her2fast
