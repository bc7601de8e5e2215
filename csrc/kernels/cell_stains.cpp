// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cell_grid.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

// Rows of the inverse of the H-DAB matrix in 1/1024 (StainMatrix::h_dab, tested against
// it): amounts = density times these.
constexpr std::int32_t kHematoxylin[3] = {1229, 702, -940};
constexpr std::int32_t kDab[3] = {-706, 24, 1545};
constexpr std::int32_t kShift = 10;
/// Of DAB, taken off hematoxylin, in 1/1024 (0.3): on phantoms of eight laboratories
/// brown cytoplasm then seeds fewest false nuclei.
constexpr std::int32_t kBrown = 307;

inline std::int32_t mix(const std::int32_t (&row)[3], std::int32_t r, std::int32_t g,
                        std::int32_t b) {
  return (row[0] * r + row[1] * g + row[2] * b) >> kShift;  // floor, also below 0
}

}  // namespace

GridPlane<std::uint8_t> walls_of(ImageView<const std::uint8_t> mask, std::int32_t step) {
  GridPlane<std::uint8_t> out(mask.height / step, mask.width / step);
  for (std::int64_t y = 0; y < out.height; ++y) {
    std::uint8_t* const row = out.row(y);
    const std::uint8_t* const top = mask.row(y * step);
    const std::uint8_t* const below = mask.row(y * step + step - 1);
    for (std::int64_t x = 0; x < out.width; ++x) {
      const std::int64_t left = x * step, right = x * step + step - 1;
      row[x] = (top[left] | top[right] | below[left] | below[right]) != 0;
    }
  }
  return out;
}

void cell_stains(ImageView<const std::uint8_t> rgb, Rgb white, std::int32_t step,
                 ImageView<std::uint16_t> hematoxylin, ImageView<std::uint8_t> dab,
                 Device device) {
  check_device(device, "cell_stains");
  check_channels(rgb, 3, "an RGB image");
  check_step(step);
  check_channels(hematoxylin, 1, "a hematoxylin plane");
  check_channels(dab, 1, "a DAB plane");
  check_same_size(rgb, dab, "a DAB plane");
  check_covers(hematoxylin, rgb, step, "an RGB image");
  check_white(white, kMinWhite);
  const DensityTables tables = density_tables(white);
  const std::int32_t scale = kHematoxylinOne / kDensityOne / (step * step);
  std::vector<std::int32_t> sums(static_cast<std::size_t>(3 * hematoxylin.width));
  for (std::int64_t y = 0; y < hematoxylin.height; ++y) {
    std::fill(sums.begin(), sums.end(), 0);
    for (std::int64_t row = y * step; row < (y + 1) * step; ++row) {
      const std::uint8_t* p = rgb.row(row);
      std::uint8_t* const out = dab.row(row);
      for (std::int64_t x = 0; x < hematoxylin.width; ++x) {
        std::int32_t* const sum = sums.data() + 3 * x;
        for (std::int32_t k = 0; k < step; ++k, p += 3) {
          const std::int32_t r = tables[0][p[0]], g = tables[1][p[1]],
                             b = tables[2][p[2]];
          const std::int32_t amount = mix(kDab, r, g, b);
          out[x * step + k] = static_cast<std::uint8_t>(
              std::clamp((amount * 100 + kDensityOne / 2) >> 10, 0, 255));
          sum[0] += r;
          sum[1] += g;
          sum[2] += b;
        }
      }
    }
    std::uint16_t* const out = hematoxylin.row(y);
    for (std::int64_t x = 0; x < hematoxylin.width; ++x) {
      const std::int32_t r = sums[3 * x] * scale, g = sums[3 * x + 1] * scale,
                         b = sums[3 * x + 2] * scale;
      const std::int32_t brown = std::max(mix(kDab, r, g, b), 0) * kBrown >> kShift;
      out[x] = static_cast<std::uint16_t>(
          std::clamp(mix(kHematoxylin, r, g, b) - brown, 0, kHematoxylinMost));
    }
  }
}

}  // namespace her2fast
