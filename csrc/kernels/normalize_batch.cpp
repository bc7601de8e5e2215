// SPDX-License-Identifier: Apache-2.0
#include "her2fast/normalize_batch.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/half.h"
#include "kernels/normalize_rule.h"

namespace her2fast {
namespace {

constexpr std::int64_t kMostSide = std::int64_t{1} << 30;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 40;

void check(std::int64_t n, std::int64_t height, std::int64_t width,
           const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  const auto is_side = [](std::int64_t side) { return side >= 0 && side <= kMostSide; };
  if (!is_side(n) || !is_side(height) || !is_side(width) ||
      (n > 0 && height > 0 && width > kMostPixels / n / height)) {
    throw std::invalid_argument(
        "need n, height, width of 0 to 2^30 and at most 2^40 pixels, got " +
        std::to_string(n) + " x " + std::to_string(height) + " x " +
        std::to_string(width));
  }
  for (std::size_t c = 0; c < 3; ++c) {
    if (std::isfinite(mean[c]) && std::isfinite(std[c]) && std[c] > 0) continue;
    throw std::invalid_argument("need finite means and deviations above 0, got " +
                                std::to_string(mean[c]) + " and " +
                                std::to_string(std[c]));
  }
}

/// A value of a channel has one of 256 results.
template <typename T, typename Convert>
void run(const std::uint8_t* rgb, std::int64_t n, std::int64_t plane_px,
         const std::array<float, 3>& mean, const std::array<float, 3>& std, T* out,
         Convert convert) {
  T table[3][256];
  for (std::size_t c = 0; c < 3; ++c) {
    for (int v = 0; v < 256; ++v) table[c][v] = convert(normalized(v, mean[c], std[c]));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint8_t* in = rgb + 3 * i * plane_px;
    T* const red = out + 3 * i * plane_px;
    for (std::int64_t p = 0; p < plane_px; ++p) {
      red[p] = table[0][in[3 * p]];
      red[plane_px + p] = table[1][in[3 * p + 1]];
      red[2 * plane_px + p] = table[2][in[3 * p + 2]];
    }
  }
}

}  // namespace

void normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                     std::int64_t width, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, float* out) {
  check(n, height, width, mean, std);
  run(rgb, n, height * width, mean, std, out, [](float value) { return value; });
}

void normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                     std::int64_t width, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, std::uint16_t* out) {
  check(n, height, width, mean, std);
  run(rgb, n, height * width, mean, std, out, half_bits);
}

}  // namespace her2fast
