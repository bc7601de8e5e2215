// SPDX-License-Identifier: Apache-2.0
#include "her2fast/stain_unmix.h"

#include <cmath>
#include <stdexcept>

#include "kernels/check.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

using Vector = std::array<double, 3>;

Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2],
          a[0] * b[1] - a[1] * b[0]};
}

double dot(const Vector& a, const Vector& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vector scaled(const Vector& a, double factor) {
  return {a[0] * factor, a[1] * factor, a[2] * factor};
}

/// Columns of the inverse of the matrix whose rows are `rows`: amounts = density *
/// inverse.
std::array<Vector, 3> inverse_columns(const std::array<Vector, 3>& rows) {
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

}  // namespace

StainMatrix StainMatrix::h_dab() {
  // Ruifrok and Johnston 2001: (0.650, 0.704, 0.286) and (0.268, 0.570, 0.776), made
  // unit; the residual is their normal.
  Vector hematoxylin{0.650, 0.704, 0.286}, dab{0.268, 0.570, 0.776};
  hematoxylin = scaled(hematoxylin, 1 / std::sqrt(dot(hematoxylin, hematoxylin)));
  dab = scaled(dab, 1 / std::sqrt(dot(dab, dab)));
  const Vector normal = cross(hematoxylin, dab);
  return {{hematoxylin, dab, scaled(normal, 1 / std::sqrt(dot(normal, normal)))}};
}

void stain_unmix(ImageView<const std::uint8_t> rgb, Rgb white, const StainMatrix& stains,
                 ImageView<float> out, Device device) {
  check_device(device, "stain_unmix");
  check_channels(rgb, 3, "an RGB image");
  check_channels(out, 3, "an output");
  check_same_size(rgb, out, "an output");
  check_white(white, 1);
  const auto columns = inverse_columns(stains.rows);
  // amounts = sum over channels of density(channel) * column entry: both factors fold
  // into one table of three floats a value, padded to four for aligned loads.
  struct alignas(16) Amounts {
    float stain[4];
  };
  std::array<std::array<Amounts, 256>, 3> table;
  const int whites[3] = {white.r, white.g, white.b};
  for (int channel = 0; channel < 3; ++channel) {
    for (int v = 0; v < 256; ++v) {
      const double od = optical_density(v, whites[channel]);
      for (int s = 0; s < 3; ++s) {
        table[channel][v].stain[s] = static_cast<float>(od * columns[s][channel]);
      }
      table[channel][v].stain[3] = 0;
    }
  }
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    const std::uint8_t* in = rgb.row(y);
    float* amounts = out.row(y);
    for (std::int64_t x = 0; x < rgb.width; ++x, in += 3, amounts += 3) {
      const Amounts& r = table[0][in[0]];
      const Amounts& g = table[1][in[1]];
      const Amounts& b = table[2][in[2]];
      for (int s = 0; s < 3; ++s) amounts[s] = r.stain[s] + g.stain[s] + b.stain[s];
    }
  }
}

}  // namespace her2fast
