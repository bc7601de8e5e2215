// SPDX-License-Identifier: Apache-2.0
/// The one definition of optical density: -log10(max(v, 1) / white), base 10,
/// dimensionless.
///
/// Integer kernels use it in units of 1/1024 against a table relative to 255; float
/// kernels use it as float32. Both come from here, so mask, census and unmixing never
/// disagree on density.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "her2fast/tissue_mask.h"

namespace her2fast {

/// Integer optical density of 1. A step of one gray level near white is 1.74 units.
inline constexpr std::int32_t kDensityOne = 1024;

/// Optical density in double precision. White 0 has none.
inline double optical_density(int value, int white) {
  return std::log10(static_cast<double>(white) / std::max(value, 1));
}

/// round(1024 * log10(255 / max(v, 1))). The nearest value to a half lies 1.5e-3 from it
/// (tested), so no math library can round an entry differently.
inline const std::array<std::int16_t, 256>& density_table_255() {
  static const std::array<std::int16_t, 256> table = [] {
    std::array<std::int16_t, 256> out{};
    for (int v = 0; v < 256; ++v) {
      out[v] = static_cast<std::int16_t>(
          std::floor(optical_density(v, 255) * kDensityOne + 0.5));
    }
    return out;
  }();
  return table;
}

using DensityTables = std::array<std::array<std::int16_t, 256>, 3>;

/// Integer density of every value of R, G and B against `white`; brighter than white is
/// 0.
inline DensityTables density_tables(Rgb white) {
  const auto& base = density_table_255();
  const int whites[3] = {white.r, white.g, white.b};
  DensityTables tables;
  for (int channel = 0; channel < 3; ++channel) {
    for (int v = 0; v < 256; ++v) {
      tables[channel][v] =
          static_cast<std::int16_t>(std::max(base[v] - base[whites[channel]], 0));
    }
  }
  return tables;
}

/// A white point darker than this is no empty glass.
inline constexpr int kMinWhite = 128;

inline void check_white(Rgb white, int least) {
  const int low = std::min({white.r, white.g, white.b});
  if (low < least) {
    throw std::invalid_argument("need a white point of at least " +
                                std::to_string(least) + " in every channel, got " +
                                std::to_string(white.r) + ", " + std::to_string(white.g) +
                                ", " + std::to_string(white.b));
  }
}

}  // namespace her2fast
