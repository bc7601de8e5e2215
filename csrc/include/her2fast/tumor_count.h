// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"

namespace her2fast {

/// Tumor pixels in every patch of a mask.
///
/// Patch (r, c) covers mask rows [r*stride_px, r*stride_px + patch_px), columns alike;
/// patches that do not fit are left out.
/// @param mask   (H, W), host memory; any value but 0 is tumor.
/// @param out    (rows, columns) of the grid, host memory; every element is written.
/// Pixel counts.
/// @throws std::invalid_argument  `out` has another shape.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe. Does not allocate on the CPU. Counts are integers: every device gives the
/// same bits.
void tumor_count(ImageView<const std::uint8_t> mask, PatchGrid grid,
                 ImageView<std::uint32_t> out, Device device = Device::kCpu);

}  // namespace her2fast
