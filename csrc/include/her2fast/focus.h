// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// A patch whose focus is at least 1 and below this is out of focus.
///
/// Measured in 64 px patches at about 1 um/px, 1st percentile | median | 99th: six HER2
/// cores in focus 92 | 160 | 250; two H&E slides 60 | 120 | 190; nuclear stains 61 | 76
/// | 87. The same blurred by a Gaussian of 2 px: 10 | 27 | 41; then JPEG at quality 80:
/// 46, at 40: 58 at the 99th percentile (pale muscle; 31 to 46 elsewhere); blurred by 3
/// px and JPEG at 60: 42.
inline constexpr std::uint32_t kFocusLimit = 50;

/// Sharpness of every patch: an integer Laplacian energy of the tissue's luminance
/// against its contrast, so that pale tissue in focus is not taken for blur.
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
