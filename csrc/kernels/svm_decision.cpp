// SPDX-License-Identifier: Apache-2.0
#include "her2fast/svm_decision.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <string>

#include "core/hot.h"
#include "kernels/check.h"

namespace her2fast {
namespace {

constexpr std::int64_t kBlock = 256;  // of support vectors: distances stay in the cache

/// exp(-x) for x >= 0, relative error below 1e-11; 0 beyond kFar.
///
/// -x = k ln 2 + r with |r| <= ln 2 / 2; exp(r) by its series to the ninth power, 2^k by
/// the exponent's bits. ln 2 in two parts, the first with so few bits that k times it is
/// exact.
HER2FAST_HOT void exp_minus(const double* x, double* out, std::int64_t count) {
  constexpr double kFar = 700.0;
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0.693147180369123816490,
                   kLn2Low = 1.90821492927058770002e-10;
  // Adding this rounds to a whole number and leaves it in the lowest bits.
  constexpr double kWhole = 6755399441055744.0;  // 1.5 * 2^52
  constexpr double kTerms[] = {1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                               1.0 / 120,    1.0 / 24,    1.0 / 6,    0.5};
  for (std::int64_t i = 0; i < count; ++i) {
    const double kept = x[i] < kFar ? x[i] : kFar;
    const double shifted = kept * kLog2E + kWhole;
    const double k = shifted - kWhole;
    const double r = (k * kLn2High - kept) + k * kLn2Low;
    double series = kTerms[0];
    for (int term = 1; term < 8; ++term) series = series * r + kTerms[term];
    series = (series * r + 1.0) * r + 1.0;
    const auto whole = std::bit_cast<std::uint64_t>(shifted) & 0x7FF;
    const double power = std::bit_cast<double>((1023 - whole) << 52);
    out[i] = x[i] > kFar ? 0.0 : series * power;
  }
}

HER2FAST_HOT std::int32_t distance2(const std::int16_t* a, const std::int16_t* b,
                                    std::int64_t count) {
  std::int32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto away = static_cast<std::int16_t>(a[i] - b[i]);
    sum += away * away;
  }
  return sum;
}

void check_values(ImageView<const std::int16_t> rows, const char* what) {
  for (std::int64_t y = 0; y < rows.height; ++y) {
    const auto [low, high] = std::minmax_element(rows.row(y), rows.row(y) + rows.width);
    if (*low < 0 || *high > kMostSvmValue) {
      throw std::invalid_argument(std::string("need ") + what + " of 0 to " +
                                  std::to_string(kMostSvmValue) + ", got " +
                                  std::to_string(*low < 0 ? *low : *high));
    }
  }
}

}  // namespace

void svm_decision(ImageView<const std::int16_t> features,
                  ImageView<const std::int16_t> vectors,
                  std::span<const double> coefficients, double intercept, double gamma,
                  std::span<double> decisions, Device device) {
  check_device(device, "svm_decision");
  check_channels(features, 1, "features");
  check_channels(vectors, 1, "support vectors");
  if (features.width < 1 || features.width > kMostSvmFeatures ||
      features.width != vectors.width) {
    throw std::invalid_argument("need 1 to " + std::to_string(kMostSvmFeatures) +
                                " features in rows and vectors alike, got " +
                                std::to_string(features.width) + " and " +
                                std::to_string(vectors.width));
  }
  if (coefficients.size() != static_cast<std::size_t>(vectors.height) ||
      decisions.size() != static_cast<std::size_t>(features.height)) {
    throw std::invalid_argument(
        "need a coefficient for each of " + std::to_string(vectors.height) +
        " vectors and a decision for each of " + std::to_string(features.height) +
        " rows, got " + std::to_string(coefficients.size()) + " and " +
        std::to_string(decisions.size()));
  }
  if (!(gamma > 0 && std::isfinite(gamma)) || !std::isfinite(intercept)) {
    throw std::invalid_argument("need gamma > 0 and a finite intercept, got " +
                                std::to_string(gamma) + " and " +
                                std::to_string(intercept));
  }
  check_values(features, "features");
  check_values(vectors, "support vectors");
  std::array<double, kBlock> away, near;
  for (std::int64_t y = 0; y < features.height; ++y) {
    std::array<double, 4> sums = {0, 0, 0, 0};  // vector j goes to sum j % 4
    for (std::int64_t begin = 0; begin < vectors.height; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, vectors.height - begin);
      for (std::int64_t j = 0; j < count; ++j) {
        away[static_cast<std::size_t>(j)] =
            gamma * distance2(features.row(y), vectors.row(begin + j), features.width);
      }
      exp_minus(away.data(), near.data(), count);
      for (std::int64_t j = 0; j < count; ++j) {
        sums[static_cast<std::size_t>(j % 4)] +=
            coefficients[static_cast<std::size_t>(begin + j)] *
            near[static_cast<std::size_t>(j)];
      }
    }
    decisions[static_cast<std::size_t>(y)] =
        ((sums[0] + sums[1]) + (sums[2] + sums[3])) + intercept;
  }
}

}  // namespace her2fast
