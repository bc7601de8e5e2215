// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tissue_mask.h"

#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

constexpr std::int64_t kSmooth = 3;
constexpr std::int32_t kPale = 154;  // mean R + G + B density of 0.15

}  // namespace

void tissue_mask(ImageView<const std::uint8_t> rgb, Rgb white,
                 ImageView<std::uint8_t> out, Device device) {
  check_device(device, "tissue_mask");
  check_channels(rgb, 3, "an RGB image");
  check_channels(out, 1, "an output");
  check_same_size(rgb, out, "an output");
  check_white(white, kMinWhite);
  const auto& table = density_table_255();
  const std::int32_t wr = table[white.r], wg = table[white.g], wb = table[white.b];
  const std::int64_t height = rgb.height, width = rgb.width;
  std::vector<std::int32_t> sum(static_cast<std::size_t>(height * width));
  std::vector<std::int32_t> column(static_cast<std::size_t>(width), 0);
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    for (std::int64_t x = 0; x < width; ++x, p += 3) {
      sum[y * width + x] = std::max(table[p[0]] - wr, 0) + std::max(table[p[1]] - wg, 0) +
                           std::max(table[p[2]] - wb, 0);
    }
  }
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      if (y == 0) {
        for (std::int64_t k = 0; k <= std::min(kSmooth, height - 1); ++k)
          column[x] += sum[k * width + x];
      } else {
        if (y + kSmooth < height) column[x] += sum[(y + kSmooth) * width + x];
        if (y - kSmooth - 1 >= 0) column[x] -= sum[(y - kSmooth - 1) * width + x];
      }
    }
    std::int32_t total = 0;
    for (std::int64_t x = 0; x < std::min(kSmooth, width); ++x) total += column[x];
    std::uint8_t* tissue = out.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
      if (x + kSmooth < width) total += column[x + kSmooth];
      if (x - kSmooth - 1 >= 0) total -= column[x - kSmooth - 1];
      tissue[x] = total >= kPale * 49;
    }
  }
}

}  // namespace her2fast
