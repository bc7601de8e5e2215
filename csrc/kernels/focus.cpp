// SPDX-License-Identifier: Apache-2.0
#include "her2fast/focus.h"

#include <algorithm>
#include <vector>

#include "kernels/check.h"

namespace her2fast {
namespace {

constexpr std::int64_t kMinTissuePx = 64;   // fewer pixels say nothing about a patch
constexpr std::int64_t kMinContrast = 400;  // mean gradient energy, in (luminance sum)^2

}  // namespace

void focus(ImageView<const std::uint8_t> rgb, ImageView<const std::uint8_t> mask,
           PatchGrid grid, ImageView<std::uint32_t> out, Device device) {
  check_device(device, "focus");
  check_channels(rgb, 3, "an RGB image");
  check_channels(mask, 1, "a mask");
  check_channels(out, 1, "an output");
  check_same_size(rgb, mask, "a mask");
  check_grid(grid, rgb.height, rgb.width, out);
  const std::int64_t height = rgb.height, width = rgb.width;
  std::vector<std::int16_t> luma(static_cast<std::size_t>(height * width));
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    std::int16_t* line = luma.data() + y * width;
    for (std::int64_t x = 0; x < width; ++x, p += 3) {
      line[x] = static_cast<std::int16_t>(p[0] + 2 * p[1] + p[2]);
    }
  }
  for (std::int64_t r = 0; r < out.height; ++r) {
    for (std::int64_t c = 0; c < out.width; ++c) {
      const std::int64_t y0 = std::max<std::int64_t>(r * grid.stride_px, 1);
      const std::int64_t y1 = std::min(r * grid.stride_px + grid.patch_px, height - 1);
      const std::int64_t x0 = std::max<std::int64_t>(c * grid.stride_px, 1);
      const std::int64_t x1 = std::min(c * grid.stride_px + grid.patch_px, width - 1);
      std::int64_t pixels = 0, laplacian = 0, gradient = 0;
      for (std::int64_t y = y0; y < y1; ++y) {
        const std::int16_t* line = luma.data() + y * width;
        const std::uint8_t* tissue = mask.row(y);
        for (std::int64_t x = x0; x < x1; ++x) {
          if (tissue[x] == 0) continue;
          const std::int32_t left = line[x - 1], right = line[x + 1],
                             up = line[x - width], down = line[x + width];
          const std::int32_t l = left + right + up + down - 4 * line[x];
          ++pixels;
          laplacian += l * l;
          gradient += (right - left) * (right - left) + (down - up) * (down - up);
        }
      }
      const bool telling = pixels >= kMinTissuePx && gradient >= kMinContrast * pixels;
      out.row(r)[c] = telling ? static_cast<std::uint32_t>(laplacian * 100 / gradient)
                              : std::uint32_t{0};
    }
  }
}

}  // namespace her2fast
