// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tissue_mask.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/box_sum.h"
#include "kernels/check.h"
#include "kernels/optical_density.h"
#include "kernels/tissue_rule.h"

namespace her2fast {
namespace {

using namespace tissue;

/// Columns worked on at once, so that scratch stays in the cache for any image.
constexpr std::int64_t kBandPx = 1024;
constexpr std::int64_t kHalo = kTissueReachPx;

/// The rule over a band of columns, streaming: row t of the image goes in, row t - kHalo
/// of the mask comes out. Scratch is 32 rows, whatever the height. Pixels outside the
/// image are white.
class Stream {
 public:
  explicit Stream(std::int64_t width_px)
      : width_(width_px + 2 * kHalo),
        density_(width_),
        texture_(width_),
        candidate_(width_),
        solid_(width_),
        ink_(width_),
        inked_(width_),
        density_box_(width_),
        texture_box_(width_),
        fill_box_(width_),
        grow_box_(width_),
        ink_box_(width_),
        ink_grow_box_(width_),
        r_(static_cast<std::size_t>(width_)),
        g_(r_),
        b_(r_) {}

  void run(ImageView<const std::uint8_t> rgb, const DensityTables& tables,
           ImageView<std::uint8_t> out, std::int64_t x0, std::int64_t x1) {
    for (std::int64_t t = -kHalo; t < rgb.height + kHalo; ++t) {
      read(rgb, tables, x0 - kHalo, t);
      measure_texture(t - kTextureLag);
      find_candidates(t - kTextureLag - kBox);
      threshold(fill_box_.next(candidate_, t - kTextureLag - kBox - kBody), kFill,
                solid_.row(t - kTextureLag - kBox - kBody));
      const std::int64_t y = t - kHalo;
      const std::uint8_t* const body = grow_box_.next(solid_, y);
      // Most tiles hold no ink. Once the rings hold none either, nothing is left to
      // compute.
      const bool has_ink =
          t - last_ink_row_ <= kInkBox + kInkGrow + RowRing<std::uint8_t>::kRows;
      const std::uint8_t* near_ink = nullptr;
      if (has_ink) {
        threshold(ink_box_.next(ink_, t - kHalo + kInkGrow), kInkFill,
                  inked_.row(t - kHalo + kInkGrow));
        near_ink = ink_grow_box_.next(inked_, y);
      }
      if (y < 0) continue;
      std::uint8_t* const tissue = out.row(y);
      for (std::int64_t x = x0; x < x1; ++x) tissue[x] = body[x - x0 + kHalo] != 0;
      if (!has_ink) continue;
      for (std::int64_t x = x0; x < x1; ++x) {
        tissue[x] &= static_cast<std::uint8_t>(near_ink[x - x0 + kHalo] == 0);
      }
    }
  }

 private:
  void read(ImageView<const std::uint8_t> rgb, const DensityTables& tables,
            std::int64_t left, std::int64_t y) {
    std::uint16_t* const density = density_.row(y);
    std::uint8_t* const ink = ink_.row(y);
    const bool outside = y < 0 || y >= rgb.height;
    const std::int64_t from = outside ? 0 : std::max<std::int64_t>(-left, 0);
    const std::int64_t to = outside ? 0 : std::min(width_, rgb.width - left);
    std::fill(density, density + from, std::uint16_t{0});
    std::fill(density + to, density + width_, std::uint16_t{0});
    std::fill(ink, ink + from, std::uint8_t{0});
    std::fill(ink + to, ink + width_, std::uint8_t{0});
    if (outside) return;
    const std::uint8_t* const p = rgb.row(y) + 3 * (left + from);
    const std::int64_t n = to - from;
    std::int16_t *const r = r_.data(), *const g = g_.data(), *const b = b_.data();
    for (std::int64_t x = 0; x < n; ++x) {
      r[x] = tables[0][p[3 * x]];
      g[x] = tables[1][p[3 * x + 1]];
      b[x] = tables[2][p[3 * x + 2]];
    }
    std::uint8_t any = 0;
    for (std::int64_t x = 0; x < n; ++x) {
      const auto sum = static_cast<std::int16_t>(r[x] + g[x] + b[x]);
      density[from + x] = static_cast<std::uint16_t>(std::min(sum, kDensityClip));
      const std::uint8_t pen = is_ink(r[x], g[x], b[x]);
      ink[from + x] = pen;
      any |= pen;
    }
    if (any != 0) last_ink_row_ = y;
  }

  void measure_texture(std::int64_t y) {
    const std::uint16_t* const here = density_.row(y);
    const std::uint16_t* const up = density_.row(y - kTextureLag);
    const std::uint16_t* const down = density_.row(y + kTextureLag);
    std::uint16_t* const texture = texture_.row(y);
    // The outermost columns stay 0; they lie beyond the reach of any pixel that is kept.
    for (std::int64_t x = kTextureLag; x < width_ - kTextureLag; ++x) {
      texture[x] = static_cast<std::uint16_t>(
          texture_step(here[x + kTextureLag], here[x - kTextureLag]) +
          texture_step(down[x], up[x]));
    }
  }

  void find_candidates(std::int64_t y) {
    const std::uint16_t* const density = density_box_.next(density_, y);
    const std::uint16_t* const texture = texture_box_.next(texture_, y);
    std::uint8_t* const candidate = candidate_.row(y);
    for (std::int64_t x = 0; x < width_; ++x) {
      candidate[x] =
          (density[x] >= kDense * area(kBox)) | (texture[x] >= kTextured * area(kBox));
    }
  }

  void threshold(const std::uint8_t* counts, std::uint8_t least,
                 std::uint8_t* out) const {
    for (std::int64_t x = 0; x < width_; ++x) out[x] = counts[x] >= least;
  }

  std::int64_t width_;  // with the halo
  std::int64_t last_ink_row_ = INT32_MIN;
  RowRing<std::uint16_t> density_, texture_;
  RowRing<std::uint8_t> candidate_, solid_, ink_, inked_;
  BoxRows<std::uint16_t, kBox> density_box_, texture_box_;
  BoxRows<std::uint8_t, kBody> fill_box_;
  BoxRows<std::uint8_t, kBody, true> grow_box_;
  BoxRows<std::uint8_t, kInkBox> ink_box_;
  BoxRows<std::uint8_t, kInkGrow, true> ink_grow_box_;
  std::vector<std::int16_t> r_, g_, b_;
};

}  // namespace

void tissue_mask(ImageView<const std::uint8_t> rgb, Rgb white,
                 ImageView<std::uint8_t> out, Device device) {
  check_device(device, "tissue_mask");
  check_channels(rgb, 3, "an RGB image");
  check_channels(out, 1, "an output");
  check_same_size(rgb, out, "an output");
  check_white(white, kMinWhite);
  const DensityTables tables = density_tables(white);
  for (std::int64_t x = 0; x < rgb.width; x += kBandPx) {
    const std::int64_t end = std::min(x + kBandPx, rgb.width);
    Stream(end - x).run(rgb, tables, out, x, end);
  }
}

}  // namespace her2fast
