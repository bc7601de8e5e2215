// SPDX-License-Identifier: Apache-2.0
#include "her2fast/stain_census.h"

#include "kernels/check.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

/// All thresholds of the census; densities in 1/1024. docs/design/kernels.md has the
/// margins.
constexpr int kDarkValue = 40;          // black in all channels: density above 0.8
constexpr std::int32_t kStained = 410;  // R + G + B of 0.4: below, noise decides the hue
// The unit normal of hematoxylin and DAB (stain_unmix.h) is (0.637, -0.711, 0.302); in
// 1/256:
constexpr std::int32_t kNormalR = 163, kNormalG = -182, kNormalB = 77;
// Off-plane density per R + G + B, in 1/256.
constexpr std::int32_t kEosinSlope = 23;  // magenta side: 0.09
constexpr std::int32_t kOtherSlope = 31;  // either side: 0.12

}  // namespace

StainCensus& StainCensus::operator+=(const StainCensus& other) {
  pixels += other.pixels;
  dark += other.dark;
  tissue += other.tissue;
  stained += other.stained;
  eosin += other.eosin;
  h_dab += other.h_dab;
  return *this;
}

bool is_wrong_stain(const StainCensus& census) {
  if (2 * census.dark > census.pixels) return true;
  if (census.stained < 1000) return false;
  return 4 * census.eosin > census.stained || 2 * census.h_dab < census.stained;
}

StainCensus stain_census(ImageView<const std::uint8_t> rgb,
                         ImageView<const std::uint8_t> mask, Rgb white, Device device) {
  check_device(device, "stain_census");
  check_channels(rgb, 3, "an RGB image");
  check_channels(mask, 1, "a mask");
  check_same_size(rgb, mask, "a mask");
  check_white(white, kMinWhite);
  const auto& table = density_table_255();
  const std::int32_t wr = table[white.r], wg = table[white.g], wb = table[white.b];
  StainCensus census;
  census.pixels = rgb.height * rgb.width;
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    const std::uint8_t* tissue = mask.row(y);
    for (std::int64_t x = 0; x < rgb.width; ++x, p += 3) {
      census.dark += p[0] < kDarkValue && p[1] < kDarkValue && p[2] < kDarkValue;
      if (tissue[x] == 0) continue;
      ++census.tissue;
      const std::int32_t r = std::max(table[p[0]] - wr, 0),
                         g = std::max(table[p[1]] - wg, 0),
                         b = std::max(table[p[2]] - wb, 0);
      const std::int32_t sum = r + g + b;
      if (sum < kStained) continue;
      ++census.stained;
      const std::int32_t normal = kNormalR * r + kNormalG * g + kNormalB * b;
      census.eosin += normal < -kEosinSlope * sum;
      census.h_dab += normal >= -kEosinSlope * sum && normal <= kOtherSlope * sum;
    }
  }
  return census;
}

}  // namespace her2fast
