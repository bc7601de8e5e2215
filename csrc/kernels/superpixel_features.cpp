// SPDX-License-Identifier: Apache-2.0
#include "her2fast/superpixel_features.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "core/hot.h"
#include "her2fast/nuclei.h"
#include "kernels/check.h"
#include "kernels/cielab.h"

namespace her2fast {
namespace {

constexpr std::int32_t kLowestA = -24, kLowestB = -32, kLabStep = 2;
constexpr std::int32_t kLastBin = kColorBins - 1;
constexpr int kNotUniform = 9;

/// Uniform patterns by their ones, all others together.
const std::array<std::uint8_t, 256>& pattern_table() {
  static const auto table = [] {
    std::array<std::uint8_t, 256> out{};
    for (unsigned bits = 0; bits < 256; ++bits) {
      const auto byte = static_cast<std::uint8_t>(bits);
      const int changes =
          std::popcount(static_cast<std::uint8_t>(byte ^ std::rotl(byte, 1)));
      out[bits] =
          static_cast<std::uint8_t>(changes <= 2 ? std::popcount(byte) : kNotUniform);
    }
    return out;
  }();
  return table;
}

/// Whether bilinear interpolation at (0.70711, 0.70711) gives the pixel's own value or
/// more. Of the four weights .29289^2, .29289 * .70711 (twice) and .70711^2 one falls on
/// the pixel itself, so the sign is that of .29289 * (horizontal + vertical) + .70711 *
/// diagonal, all less the pixel: products and sum are below 2^25, so floats are off by
/// 2 at most, and of all whole arguments the least sum other than 0 is 71.
inline bool as_light(float sides, float corner) {
  return 29289.0F * sides + 70711.0F * corner >= 0.0F;
}

/// Patterns of one row between its first and last pixel. `above` and `below` may be rows
/// of zeros; all have a zero on both sides.
HER2FAST_HOT void row_patterns(const std::int16_t* above, const std::int16_t* own,
                               const std::int16_t* below, std::int64_t width,
                               std::uint8_t* bits) {
  for (std::int64_t x = 0; x < width; ++x) {
    const int c = own[x];
    const int e = own[x + 1] - c, w = own[x - 1] - c, n = above[x] - c, s = below[x] - c;
    const int ne = above[x + 1] - c, nw = above[x - 1] - c, se = below[x + 1] - c,
              sw = below[x - 1] - c;
    const auto corner = [](int sides, int diagonal) {
      return static_cast<int>(
          as_light(static_cast<float>(sides), static_cast<float>(diagonal)));
    };
    const int code = int{e >= 0} | corner(n + e, ne) << 1 | int{n >= 0} << 2 |
                     corner(n + w, nw) << 3 | int{w >= 0} << 4 | corner(s + w, sw) << 5 |
                     int{s >= 0} << 6 | corner(s + e, se) << 7;
    bits[x] = static_cast<std::uint8_t>(code);
  }
}

}  // namespace

void local_patterns(ImageView<const std::uint8_t> gray, ImageView<std::uint8_t> patterns,
                    Device device) {
  check_device(device, "local_patterns");
  check_channels(gray, 1, "a gray picture");
  check_channels(patterns, 1, "patterns");
  check_same_size(gray, patterns, "patterns");
  const std::int64_t height = gray.height, width = gray.width;
  const auto& table = pattern_table();
  // Three rows with a zero on each side.
  const std::size_t wide = static_cast<std::size_t>(width) + 2;
  std::vector<std::int16_t> rows(3 * wide, 0);
  const auto row = [&](std::int64_t y) {
    return rows.data() + static_cast<std::size_t>((y + 3) % 3) * wide + 1;
  };
  const auto fill = [&](std::int64_t y) {
    if (y < height) {
      std::copy_n(gray.row(y), width, row(y));
    } else {
      std::fill_n(row(y), width, std::int16_t{0});
    }
  };
  if (height > 0) fill(0);
  for (std::int64_t y = 0; y < height; ++y) {
    fill(y + 1);
    std::uint8_t* const out = patterns.row(y);
    row_patterns(row(y - 1), row(y), row(y + 1), width, out);
    for (std::int64_t x = 0; x < width; ++x) out[x] = table[out[x]];
  }
}

void superpixel_features(ImageView<const std::uint8_t> rgb,
                         ImageView<const std::int32_t> labels, Rgb white,
                         ImageView<std::uint32_t> counts, Device device) {
  check_device(device, "superpixel_features");
  check_channels(rgb, 3, "an RGB image");
  check_channels(labels, 1, "labels");
  check_channels(counts, 1, "counts");
  check_same_size(rgb, labels, "labels");
  if (counts.width != kSuperpixelFeatures) {
    throw std::invalid_argument("need counts of " + std::to_string(kSuperpixelFeatures) +
                                " columns, got " + std::to_string(counts.width));
  }
  const std::int64_t height = rgb.height, width = rgb.width;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      if (labels.row(y)[x] < 0 || labels.row(y)[x] >= counts.height) {
        throw std::invalid_argument("need labels of 0 to " +
                                    std::to_string(counts.height - 1) + ", got " +
                                    std::to_string(labels.row(y)[x]));
      }
    }
  }
  const auto area = static_cast<std::size_t>(height * width);
  std::vector<std::uint16_t> hematoxylin(area);
  std::vector<std::uint8_t> dab(area), gray(area), pattern(area);
  cell_stains(rgb, white, 1, {hematoxylin.data(), height, width},
              {dab.data(), height, width}, device);
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    std::uint8_t* const out = gray.data() + y * width;
    for (std::int64_t x = 0; x < width; ++x, p += 3) {
      out[x] = static_cast<std::uint8_t>((77 * p[0] + 150 * p[1] + 29 * p[2] + 128) >> 8);
    }
  }
  local_patterns({gray.data(), height, width}, {pattern.data(), height, width}, device);

  for (std::int64_t k = 0; k < counts.height; ++k) {
    std::fill_n(counts.row(k), kSuperpixelFeatures, 0U);
  }
  const LabTables& tables = lab_tables();
  const auto lab_bin = [](std::int32_t value, std::int32_t lowest) {
    return std::clamp((value - lowest * kLabOne) / (kLabStep * kLabOne), 0, kLastBin);
  };
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* p = rgb.row(y);
    const std::int32_t* const label = labels.row(y);
    const bool inner_row = y > 0 && y + 1 < height;
    for (std::int64_t x = 0; x < width; ++x, p += 3) {
      const std::int64_t at = y * width + x;
      const Lab lab = to_lab(tables, p);
      const std::int32_t bins[kColorPlanes] = {
          p[0] >> 3,
          p[1] >> 3,
          p[2] >> 3,
          lab_bin(lab.a, kLowestA),
          lab_bin(lab.b, kLowestB),
          hematoxylin[static_cast<std::size_t>(at)] * kColorBins / (kHematoxylinMost + 1),
          dab[static_cast<std::size_t>(at)] >> 3};
      std::uint32_t* const own = counts.row(label[x]);
      for (int plane = 0; plane < kColorPlanes; ++plane) {
        ++own[plane * kColorBins + bins[plane]];
      }
      if (inner_row && x > 0 && x + 1 < width) {
        ++own[kColorPlanes * kColorBins + pattern[static_cast<std::size_t>(at)]];
      }
    }
  }
}

void superpixel_roots(ImageView<const std::uint32_t> counts,
                      ImageView<std::int16_t> features, Device device) {
  check_device(device, "superpixel_roots");
  check_channels(counts, 1, "counts");
  check_channels(features, 1, "features");
  check_same_size(counts, features, "features");
  if (counts.width != kSuperpixelFeatures) {
    throw std::invalid_argument("need counts of " + std::to_string(kSuperpixelFeatures) +
                                " columns, got " + std::to_string(counts.width));
  }
  for (std::int64_t k = 0; k < counts.height; ++k) {
    const std::uint32_t* const in = counts.row(k);
    std::int16_t* const out = features.row(k);
    for (std::int32_t begin = 0; begin < kSuperpixelFeatures; begin += kColorBins) {
      const std::int32_t end = std::min(begin + kColorBins, kSuperpixelFeatures);
      std::uint64_t sum = 0;
      for (std::int32_t i = begin; i < end; ++i) sum += in[i];
      for (std::int32_t i = begin; i < end; ++i) {
        // IEEE rounds quotients and roots: the same everywhere.
        const double share =
            in[i] == 0 ? 0.0 : static_cast<double>(in[i]) / static_cast<double>(sum);
        out[i] =
            static_cast<std::int16_t>(std::floor(kFeatureOne * std::sqrt(share) + 0.5));
      }
    }
  }
}

}  // namespace her2fast
