// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "her2fast/image.h"
#include "her2fast/tissue_mask.h"

namespace her2fast {

/// Pixels of a tile by what they are stained with. Counts add over tiles.
struct StainCensus {
  std::int64_t pixels = 0;  ///< all pixels looked at
  std::int64_t dark =
      0;  ///< nearly black in all channels: fluorescence background, black pen
  std::int64_t tissue = 0;   ///< mask set
  std::int64_t stained = 0;  ///< tissue dense enough to name its stain
  std::int64_t eosin =
      0;  ///< of `stained`: magenta beyond what hematoxylin and DAB can mix
  std::int64_t h_dab = 0;  ///< of `stained`: a non-negative mix of hematoxylin and DAB
  StainCensus& operator+=(const StainCensus& other);
  bool operator==(const StainCensus&) const = default;
};

/// What the census says of a slide scored by an H-DAB method.
/// True for H&E, fluorescence and other stains; hematoxylin alone (a score of 0) is not
/// wrong.
bool is_wrong_stain(const StainCensus& census);

/// @param rgb (H, W, 3); @param mask (H, W) tissue mask. @throws std::invalid_argument,
/// DeviceError
StainCensus stain_census(ImageView<const std::uint8_t> rgb,
                         ImageView<const std::uint8_t> mask, Rgb white,
                         Device device = Device::kCpu);

}  // namespace her2fast
