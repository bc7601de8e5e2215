// SPDX-License-Identifier: Apache-2.0
/// What every value of every channel adds to the amount of each stain; for both devices.
#pragma once

#include <array>
#include <cmath>
#include <stdexcept>

#include "her2fast/stain_unmix.h"
#include "kernels/optical_density.h"

namespace her2fast {

using StainVector = std::array<double, 3>;

inline StainVector cross(const StainVector& a, const StainVector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2],
          a[0] * b[1] - a[1] * b[0]};
}

inline double dot(const StainVector& a, const StainVector& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

inline StainVector scaled(const StainVector& a, double factor) {
  return {a[0] * factor, a[1] * factor, a[2] * factor};
}

/// Columns of the inverse of the matrix whose rows are `rows`: amounts = density *
/// inverse.
inline std::array<StainVector, 3> inverse_columns(
    const std::array<StainVector, 3>& rows) {
  const double volume = dot(rows[0], cross(rows[1], rows[2]));
  const double size =
      std::sqrt(dot(rows[0], rows[0]) * dot(rows[1], rows[1]) * dot(rows[2], rows[2]));
  // Written so that NaN and infinity fail too. Below 1e-3 of a cube the stains cannot be
  // told apart: amounts would be amplified noise.
  if (!(std::isfinite(size) && std::abs(volume) > 1e-3 * size)) {
    throw std::invalid_argument(
        "need three finite, linearly independent stain vectors, got a singular matrix");
  }
  return {scaled(cross(rows[1], rows[2]), 1 / volume),
          scaled(cross(rows[2], rows[0]), 1 / volume),
          scaled(cross(rows[0], rows[1]), 1 / volume)};
}

/// amounts = sum over channels of density(channel) * column entry: both factors fold into
/// one table of three floats a value, padded to four for aligned loads.
struct alignas(16) StainAmounts {
  float stain[4];
};
struct StainTable {
  StainAmounts amounts[3][256];
};

/// @throws std::invalid_argument  the matrix is singular, a white point of 0.
inline StainTable stain_table(Rgb white, const StainMatrix& stains) {
  check_white(white, 1);
  const auto columns = inverse_columns(stains.rows);
  StainTable table;
  const int whites[3] = {white.r, white.g, white.b};
  for (int channel = 0; channel < 3; ++channel) {
    for (int v = 0; v < 256; ++v) {
      const double od = optical_density(v, whites[channel]);
      for (int s = 0; s < 3; ++s) {
        table.amounts[channel][v].stain[s] = static_cast<float>(od * columns[s][channel]);
      }
      table.amounts[channel][v].stain[3] = 0;
    }
  }
  return table;
}

}  // namespace her2fast
