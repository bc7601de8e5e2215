// SPDX-License-Identifier: Apache-2.0
/// The rule of tissue_mask, for both devices.
#pragma once

#include <algorithm>
#include <cstdint>

#include "her2fast/tissue_mask.h"
#include "kernels/host_device.h"

namespace her2fast::tissue {

// The rule (docs/design/kernels.md has the measurements behind every number):
//   candidate = box mean of density >= kDense, or box mean of texture >= kTextured
//   body      = candidates that fill a box to kFill, grown back by the same box
//   ink       = pixels of pen color that fill a box to kInkFill, grown by kInkGrow
//   tissue    = body and not ink
// Reaches add up: texture 2 + box 4 + fill 5 + grow 5 = 16; ink 5 + 8 = 13.
inline constexpr int kTextureLag = 2;
inline constexpr int kBox = 4;   // 9 x 9
inline constexpr int kBody = 5;  // 11 x 11
inline constexpr int kInkBox = 5;
inline constexpr int kInkGrow = 8;
static_assert(kTextureLag + kBox + 2 * kBody == kTissueReachPx);
static_assert(kInkBox + kInkGrow <= kTissueReachPx);

constexpr int side(int radius) { return 2 * radius + 1; }
constexpr int area(int radius) { return side(radius) * side(radius); }

// Densities are R + G + B in 1/1024. Clipping keeps a strong edge or a speck from lending
// its density and texture to the glass around it: no pixel speaks louder than another.
inline constexpr std::int16_t kDensityClip = 400;
inline constexpr std::int16_t kTextureClip = 64;
inline constexpr int kDense = 184;
inline constexpr int kTextured = 45;
inline constexpr int kFill = 97;     // of 121
inline constexpr int kInkFill = 54;  // of 121

/// Pen colors, as densities; each line is a color no mix of hematoxylin, DAB and eosin
/// has at that density. Coefficients are small so that 16 bits hold every sum.
HER2FAST_HOST_DEVICE inline std::uint8_t is_ink(std::int16_t r, std::int16_t g,
                                                std::int16_t b) {
  // Narrow on purpose: 16-bit lanes, so that a vector holds eight pixels and not four.
  const auto form = [](int value) { return static_cast<std::int16_t>(value); };
  const bool cool = (form(8 * r - 7 * g) > 1000) & (r > 410);  // on tissue too
  const bool blue = (form(4 * r - 5 * g) > 123) & (form(2 * r - 5 * b) > 0);  // pale blue
  const bool teal = form(5 * r - 6 * g) > 410;  // green on glass
  const bool red = (form(g - 5 * r) > 0) & (form(4 * b - 3 * g) > 0) & (g > 307);
  const std::int16_t low = std::min(std::min(r, g), b),
                     high = std::max(std::max(r, g), b);
  const bool black = (low > 819) & (form(high - low) < 360);
  return cool | blue | teal | red | black;
}

/// |a - b| along one axis, clipped.
HER2FAST_HOST_DEVICE inline std::int16_t texture_step(std::uint16_t a, std::uint16_t b) {
  const auto rise = static_cast<std::int16_t>(a - b);
  const auto fall = static_cast<std::int16_t>(b - a);
  const std::int16_t most = kTextureClip;  // std::min takes an address
  return std::min(std::max(rise, fall), most);
}

}  // namespace her2fast::tissue
