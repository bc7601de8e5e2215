// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// A patch whose focus is at least 1 and below this is out of focus.
///
/// Measured in 64 px patches at about 1 um/px, 1st percentile | median of the lower of
/// both sizes: six HER2 cores in focus 70 to 102 | 155 to 180. The same blurred by a
/// Gaussian of 2 px: 13 to 18 | 26 to 31; by 6 px under noise of 2.5 gray levels: median
/// 10 to 35 (full size alone: 10 to 149). Full size, 99th percentile of a blur of 2 px:
/// 41; then JPEG at quality 80: 46, at 40: 58 (pale muscle; 31 to 46 elsewhere); two H&E
/// slides in focus 60 | 120; nuclear stains 61 | 76.
inline constexpr std::uint32_t kFocusLimit = 50;

/// Sharpness of every patch: an integer Laplacian energy of the tissue's luminance
/// against its contrast, so that pale tissue in focus is not taken for blur; the lower of
/// full and half size, so that noise on blurred tissue is not taken for detail.
///
/// @param rgb   (H, W, 3), host memory.
/// @param mask  (H, W), tissue mask: only tissue pixels count.
/// @param out   (rows, columns) of the grid; every element is written. Dimensionless,
/// larger is
///              sharper; 0 where the patch has too little tissue to tell (see focus.cpp).
/// @throws std::invalid_argument, DeviceError. Thread-safe. Integers only.
void focus(ImageView<const std::uint8_t> rgb, ImageView<const std::uint8_t> mask,
           PatchGrid grid, ImageView<std::uint32_t> out, Device device = Device::kCpu);

}  // namespace her2fast
