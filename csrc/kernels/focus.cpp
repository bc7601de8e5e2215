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
//
// Twice, at full and at half size, and the lower value counts: where tissue is far out of
// focus, the sensor's noise is all that is left at the pixel, and it looks sharp. Means
// of 2 x 2 hold a quarter of its variance, and four times the gradients of what is
// smooth.
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

/// Luminance and mask of an image, or of its 2 x 2 means.
struct Plane {
  std::int64_t height = 0, width = 0;
  int shift = 3;  // a smoothed value's bits below 1/8 gray level
  Line luma;      // (height, width): R + 2G + B, or the sum of four
  std::vector<std::uint8_t> mask;

  Plane(std::int64_t height_px, std::int64_t width_px, int shift_bits)
      : height(height_px),
        width(width_px),
        shift(shift_bits),
        luma(static_cast<std::size_t>(height_px * width_px)),
        mask(luma.size()) {}
};

Plane full_plane(ImageView<const std::uint8_t> rgb, ImageView<const std::uint8_t> mask) {
  Plane out(rgb.height, rgb.width, 3);
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    std::int16_t* to = out.luma.data() + y * rgb.width;
    for (std::int64_t x = 0; x < rgb.width; ++x) {
      to[x] = static_cast<std::int16_t>(p[3 * x] + 2 * p[3 * x + 1] + p[3 * x + 2]);
    }
    std::copy_n(mask.row(y), rgb.width, out.mask.data() + y * rgb.width);
  }
  return out;
}

/// A pixel is tissue where all four are; what does not make a whole one is left out.
Plane half_plane(const Plane& full) {
  Plane out(full.height / 2, full.width / 2, 5);
  for (std::int64_t y = 0; y < out.height; ++y) {
    const std::int16_t* a = full.luma.data() + 2 * y * full.width;
    const std::int16_t* b = a + full.width;
    const std::uint8_t* m = full.mask.data() + 2 * y * full.width;
    const std::uint8_t* n = m + full.width;
    std::int16_t* to = out.luma.data() + y * out.width;
    std::uint8_t* tissue = out.mask.data() + y * out.width;
    for (std::int64_t x = 0; x < out.width; ++x) {
      to[x] =
          static_cast<std::int16_t>(a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1]);
      tissue[x] =
          (m[2 * x] != 0) & (m[2 * x + 1] != 0) & (n[2 * x] != 0) & (n[2 * x + 1] != 0);
    }
  }
  return out;
}

/// (1 2 1) along the row; the outer two values are unused.
void smooth_row(const std::int16_t* luma, std::int64_t width, std::int16_t* out) {
  for (std::int64_t x = 1; x + 1 < width; ++x) {
    out[x] = static_cast<std::int16_t>(luma[x - 1] + 2 * luma[x] + luma[x + 1]);
  }
}

void smooth_column(const std::int16_t* up, const std::int16_t* here,
                   const std::int16_t* down, std::int64_t width, int shift,
                   std::int16_t* out) {
  const int half = 1 << (shift - 1);
  for (std::int64_t x = 1; x + 1 < width; ++x) {
    out[x] = static_cast<std::int16_t>((up[x] + 2 * here[x] + down[x] + half) >> shift);
  }
}

/// Luminance in 1/8 gray level; a border of one pixel is unused.
Line smoothed(const Plane& plane) {
  Line out(plane.luma.size());
  const auto row_length = static_cast<std::size_t>(plane.width);
  Line rows[3] = {Line(row_length), Line(row_length), Line(row_length)};
  for (std::int64_t y = 0; y < plane.height; ++y) {
    smooth_row(plane.luma.data() + y * plane.width, plane.width, rows[y % 3].data());
    if (y < 2) continue;
    smooth_column(rows[(y - 2) % 3].data(), rows[(y - 1) % 3].data(), rows[y % 3].data(),
                  plane.width, plane.shift, out.data() + (y - 1) * plane.width);
  }
  return out;
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

/// Pixels [begin, end) of a plane that lie wholly in a patch of the full image.
struct Span {
  std::int64_t begin = 0, end = 0;
  Span(std::int64_t begin_px, std::int64_t patch_px, int scale, std::int64_t length)
      : begin(std::max((begin_px + scale - 1) / scale, kReachPx)),
        end(std::min((begin_px + patch_px) / scale, length - kReachPx)) {}
};

/// 100 * Laplacian / gradient of every patch at one scale; 0 where it cannot be told.
/// Only pixels whose whole stencil lies in the plane count.
std::vector<std::uint32_t> sharpness(const Plane& plane, int scale, PatchGrid grid,
                                     std::int64_t rows, std::int64_t columns) {
  std::vector<std::uint32_t> out(static_cast<std::size_t>(rows * columns), 0);
  if (plane.height <= 2 * kReachPx || plane.width <= 2 * kReachPx) return out;
  const Line smooth = smoothed(plane);
  Stencils stencils(static_cast<std::size_t>(plane.width));
  std::vector<Energy> energies(static_cast<std::size_t>(columns));
  const std::int64_t area =
      std::int64_t{grid.patch_px / scale} * std::int64_t{grid.patch_px / scale};
  const std::int64_t least = std::max<std::int64_t>(area / kMinTissueShare, 1);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::fill(energies.begin(), energies.end(), Energy{});
    const Span down(r * grid.stride_px, grid.patch_px, scale, plane.height);
    for (std::int64_t y = down.begin; y < down.end; ++y) {
      const std::int16_t* here = smooth.data() + y * plane.width;
      stencils.fill(here - 2 * plane.width, here, here + 2 * plane.width,
                    plane.mask.data() + y * plane.width, plane.width);
      for (std::int64_t c = 0; c < columns; ++c) {
        const Span along(c * grid.stride_px, grid.patch_px, scale, plane.width);
        stencils.add(along.begin, along.end, energies[static_cast<std::size_t>(c)]);
      }
    }
    for (std::int64_t c = 0; c < columns; ++c) {
      const Energy& e = energies[static_cast<std::size_t>(c)];
      if (e.pixels < least || e.gradient < kMinContrast * e.pixels) continue;
      // A telling patch is at least 1, so that 0 keeps its one meaning.
      out[static_cast<std::size_t>(r * columns + c)] = static_cast<std::uint32_t>(
          std::max<std::int64_t>(100 * e.laplacian / e.gradient, 1));
    }
  }
  return out;
}

}  // namespace

void focus(ImageView<const std::uint8_t> rgb, ImageView<const std::uint8_t> mask,
           PatchGrid grid, ImageView<std::uint32_t> out, Device device) {
  check_device(device, "focus");
  check_channels(rgb, 3, "an RGB image");
  check_channels(mask, 1, "a mask");
  check_channels(out, 1, "an output");
  check_same_size(rgb, mask, "a mask");
  check_grid(grid, rgb.height, rgb.width, out);
  const Plane full = full_plane(rgb, mask);
  const auto fine = sharpness(full, 1, grid, out.height, out.width);
  const auto coarse = sharpness(half_plane(full), 2, grid, out.height, out.width);
  for (std::int64_t r = 0; r < out.height; ++r) {
    for (std::int64_t c = 0; c < out.width; ++c) {
      const auto at = static_cast<std::size_t>(r * out.width + c);
      out.row(r)[c] = coarse[at] == 0 ? fine[at] : std::min(fine[at], coarse[at]);
    }
  }
}

}  // namespace her2fast
