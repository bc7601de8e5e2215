// SPDX-License-Identifier: Apache-2.0
#include "her2fast/focus.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/check.h"

namespace her2fast {
namespace {

// The stencil: luminance R + 2G + B, binomial 3 x 3 (against pixel noise and JPEG
// blocks), then differences two pixels apart. Single-pixel differences would separate
// sharp from blurred too, but JPEG at quality 40 lifts blurred tissue fourfold there, and
// by a third here.
constexpr std::int64_t kReachPx = 3;
// Smoothed luminance has 8 units a gray level: a Laplacian of 2047 is 64 gray levels a
// pixel, beyond any tissue at 1 um/px, and keeps the sum of 256 squares within 32 bits.
constexpr std::int32_t kClip = 2047;
constexpr std::int64_t kChunkPx = 64;
// A patch with less than a sixteenth of tissue says nothing.
constexpr std::int64_t kMinTissueShare = 16;
// Least mean squared gradient, (1/8 gray level)^2: under one gray level across 4 px the
// rounding of 8-bit pixels alone would look sharp.
constexpr std::int64_t kMinContrast = 64;

using Line = std::vector<std::int16_t>;

/// R + 2G + B, (1 2 1) along the row; `width` values, the outer two of them unused.
void smooth_row(const std::uint8_t* rgb, std::int64_t width, std::int16_t* luma,
                std::int16_t* out) {
  for (std::int64_t x = 0; x < width; ++x) {
    luma[x] = static_cast<std::int16_t>(rgb[3 * x] + 2 * rgb[3 * x + 1] + rgb[3 * x + 2]);
  }
  for (std::int64_t x = 1; x + 1 < width; ++x) {
    out[x] = static_cast<std::int16_t>(luma[x - 1] + 2 * luma[x] + luma[x + 1]);
  }
}

void smooth_column(const std::int16_t* up, const std::int16_t* here,
                   const std::int16_t* down, std::int64_t width, std::int16_t* out) {
  for (std::int64_t x = 1; x + 1 < width; ++x) {
    out[x] = static_cast<std::int16_t>((up[x] + 2 * here[x] + down[x] + 4) >> 3);
  }
}

struct Energy {
  std::int64_t pixels = 0, laplacian = 0, gradient = 0;
};

/// Stencils of one row where the mask is set, 0 elsewhere.
struct Stencils {
  Line laplacian, along, across, tissue;
  explicit Stencils(std::size_t width)
      : laplacian(width), along(width), across(width), tissue(width) {}

  void fill(const std::int16_t* up, const std::int16_t* here, const std::int16_t* down,
            const std::uint8_t* mask, std::int64_t width) {
    std::int16_t *l = laplacian.data(), *gx = along.data(), *gy = across.data(),
                 *t = tissue.data();
    for (std::int64_t x = kReachPx; x + kReachPx < width; ++x) {
      const int keep = mask[x] != 0 ? -1 : 0;
      const int curve = here[x - 2] + here[x + 2] + up[x] + down[x] - 4 * here[x];
      l[x] = static_cast<std::int16_t>(std::clamp(curve, -kClip, kClip) & keep);
      gx[x] = static_cast<std::int16_t>((here[x + 2] - here[x - 2]) & keep);
      gy[x] = static_cast<std::int16_t>((down[x] - up[x]) & keep);
      t[x] = static_cast<std::int16_t>(-keep);
    }
  }

  void add(std::int64_t x0, std::int64_t x1, Energy& energy) const {
    const std::int16_t *l = laplacian.data(), *gx = along.data(), *gy = across.data(),
                       *t = tissue.data();
    for (; x0 < x1; x0 += kChunkPx) {
      const std::int64_t end = std::min(x0 + kChunkPx, x1);
      std::int32_t pixels = 0, curve = 0, slope = 0;
      for (std::int64_t x = x0; x < end; ++x) {
        pixels += t[x];
        curve += l[x] * l[x];
        slope += gx[x] * gx[x] + gy[x] * gy[x];
      }
      energy.pixels += pixels;
      energy.laplacian += curve;
      energy.gradient += slope;
    }
  }
};

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
  const auto row_length = static_cast<std::size_t>(width);
  std::vector<std::int16_t> smooth(static_cast<std::size_t>(height) * row_length);
  if (height > 2 * kReachPx && width > 2 * kReachPx && out.height > 0 && out.width > 0) {
    Line luma(row_length);
    Line rows[3] = {Line(row_length), Line(row_length), Line(row_length)};
    for (std::int64_t y = 0; y < height; ++y) {
      smooth_row(rgb.row(y), width, luma.data(), rows[y % 3].data());
      if (y < 2) continue;
      smooth_column(rows[(y - 2) % 3].data(), rows[(y - 1) % 3].data(),
                    rows[y % 3].data(), width, smooth.data() + (y - 1) * width);
    }
  }
  Stencils stencils(row_length);
  std::vector<Energy> energies(static_cast<std::size_t>(out.width));
  const std::int64_t least = std::max<std::int64_t>(
      std::int64_t{grid.patch_px} * grid.patch_px / kMinTissueShare, 1);
  for (std::int64_t r = 0; r < out.height; ++r) {
    std::fill(energies.begin(), energies.end(), Energy{});
    // Only pixels whose whole stencil lies in the image count.
    const std::int64_t y0 = std::max(r * grid.stride_px, kReachPx);
    const std::int64_t y1 =
        std::min(r * grid.stride_px + grid.patch_px, height - kReachPx);
    for (std::int64_t y = y0; y < y1; ++y) {
      const std::int16_t* here = smooth.data() + y * width;
      stencils.fill(here - 2 * width, here, here + 2 * width, mask.row(y), width);
      for (std::int64_t c = 0; c < out.width; ++c) {
        stencils.add(std::max(c * grid.stride_px, kReachPx),
                     std::min(c * grid.stride_px + grid.patch_px, width - kReachPx),
                     energies[static_cast<std::size_t>(c)]);
      }
    }
    for (std::int64_t c = 0; c < out.width; ++c) {
      const Energy& e = energies[static_cast<std::size_t>(c)];
      const bool telling = e.pixels >= least && e.gradient >= kMinContrast * e.pixels;
      // A telling patch is at least 1, so that 0 keeps its one meaning.
      out.row(r)[c] = telling ? static_cast<std::uint32_t>(std::max<std::int64_t>(
                                    100 * e.laplacian / e.gradient, 1))
                              : std::uint32_t{0};
    }
  }
}

}  // namespace her2fast
