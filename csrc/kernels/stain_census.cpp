// SPDX-License-Identifier: Apache-2.0
#include "her2fast/stain_census.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

// All thresholds of the census; densities in 1/1024. docs/design/kernels.md has the
// margins.
constexpr int kDarkValue = 40;  // in all channels: a density above 0.8, no tissue is that
constexpr std::int32_t kStained = 410;  // R + G + B of 0.4: below, noise decides the hue
// The unit normal of the plane of hematoxylin and DAB (stain_unmix.h) is (0.637, -0.711,
// 0.302); here in 1/256. Eosin lies far on its negative side.
constexpr std::int32_t kNormalR = 163, kNormalG = -182, kNormalB = 77;
// Distance from that plane per R + G + B, in 1/256. Magenta: 0.09; eosin alone has 0.32,
// H-DAB stays under 0.05. Green: 0.16, wide enough for a greenish lamp under blue
// hematoxylin.
constexpr std::int32_t kMagentaSlope = 23, kGreenSlope = 41;
// Shares of stained tissue and of all tissue that make a slide another stain. The share
// of all tissue is there for pale slides, where a few red blood cells are most of what is
// stained.
constexpr std::int64_t kEosinOfStained = 4;  // a quarter
constexpr std::int64_t kHDabOfStained = 2;   // half
constexpr std::int64_t kOfTissue = 10;       // a tenth
constexpr std::int64_t kDarkOfPixels = 2;    // half
// Fewer stained pixels than this (0.001 mm2 at 1 um/px) say nothing.
constexpr std::int64_t kLeastStained = 1000;
constexpr std::int64_t kChunkPx = 512;  // of a row, so that scratch stays on the stack

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
  if (kDarkOfPixels * census.dark > census.pixels) return true;
  if (census.stained < kLeastStained) return false;
  const std::int64_t other = census.stained - census.h_dab;
  return (kEosinOfStained * census.eosin > census.stained &&
          kOfTissue * census.eosin > census.tissue) ||
         (kHDabOfStained * census.h_dab < census.stained &&
          kOfTissue * other > census.tissue);
}

StainCensus stain_census(ImageView<const std::uint8_t> rgb,
                         ImageView<const std::uint8_t> mask, Rgb white, Device device) {
  check_device(device, "stain_census");
  check_channels(rgb, 3, "an RGB image");
  check_channels(mask, 1, "a mask");
  check_same_size(rgb, mask, "a mask");
  check_white(white, kMinWhite);
  const DensityTables tables = density_tables(white);
  StainCensus census;
  census.pixels = rgb.height * rgb.width;
  std::int16_t r[kChunkPx], g[kChunkPx], b[kChunkPx];
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    for (std::int64_t x0 = 0; x0 < rgb.width; x0 += kChunkPx) {
      const std::int64_t n = std::min(kChunkPx, rgb.width - x0);
      const std::uint8_t* p = rgb.row(y) + 3 * x0;
      const std::uint8_t* tissue = mask.row(y) + x0;
      std::int32_t dark = 0, marked = 0, stained = 0, eosin = 0, h_dab = 0;
      for (std::int64_t x = 0; x < n; ++x) {
        dark += std::max(std::max(p[3 * x], p[3 * x + 1]), p[3 * x + 2]) < kDarkValue;
        r[x] = tables[0][p[3 * x]];
        g[x] = tables[1][p[3 * x + 1]];
        b[x] = tables[2][p[3 * x + 2]];
      }
      for (std::int64_t x = 0; x < n; ++x) {
        const std::int32_t sum = r[x] + g[x] + b[x];
        const std::int32_t normal = kNormalR * r[x] + kNormalG * g[x] + kNormalB * b[x];
        const bool is_tissue = tissue[x] != 0;
        const bool is_stained = is_tissue & (sum >= kStained);
        const bool magenta = normal < -kMagentaSlope * sum;
        const bool green = normal > kGreenSlope * sum;
        marked += is_tissue;
        stained += is_stained;
        eosin += is_stained & magenta;
        h_dab += is_stained & !magenta & !green;
      }
      census.dark += dark;
      census.tissue += marked;
      census.stained += stained;
      census.eosin += eosin;
      census.h_dab += h_dab;
    }
  }
  return census;
}

}  // namespace her2fast
