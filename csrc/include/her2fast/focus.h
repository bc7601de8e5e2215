// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// A patch with tissue and a focus below this is out of focus.
inline constexpr std::uint32_t kFocusLimit = 64;

/// Sharpness of every patch: an integer Laplacian energy of the tissue's luminance against its
/// contrast, so that pale tissue in focus is not taken for blur.
///
/// @param rgb   (H, W, 3), host memory.
/// @param mask  (H, W), tissue mask: only tissue pixels count.
/// @param out   (rows, columns) of the grid; every element is written. Dimensionless, larger is
///              sharper; 0 where the patch has too little tissue to tell (see focus.cpp).
/// @throws std::invalid_argument, DeviceError. Thread-safe. Integers only.
void focus(ImageView<const std::uint8_t> rgb, ImageView<const std::uint8_t> mask, PatchGrid grid,
           ImageView<std::uint32_t> out, Device device = Device::kCpu);

}  // namespace her2fast
