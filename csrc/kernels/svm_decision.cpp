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

/// exp(-x) for x in [0, kFar], relative error below 2e-7; 0 beyond.
///
/// -x = k ln 2 + r with |r| <= ln 2 / 2; exp(r) by its series to the sixth power, 2^k by
/// the exponent's bits. ln 2 in two parts, the first short enough that k times it is
/// exact.
inline float exp_minus(float x) {
  constexpr float kFar = 80.0F;
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  const float kept = std::min(x, kFar);
  const auto k = static_cast<std::int32_t>(kept * kLog2E + 0.5F);
  const auto whole = static_cast<float>(k);
  const float r = (whole * kLn2High - kept) + whole * kLn2Low;
  float series = 1.0F / 720;
  series = series * r + 1.0F / 120;
  series = series * r + 1.0F / 24;
  series = series * r + 1.0F / 6;
  series = series * r + 0.5F;
  series = series * r + 1.0F;
  series = series * r + 1.0F;
  const float power = std::bit_cast<float>((127 - k) << 23);
  return x > kFar ? 0.0F : series * power;
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
  std::array<float, kBlock> near;
  for (std::int64_t y = 0; y < features.height; ++y) {
    std::array<double, 4> sums = {0, 0, 0, 0};  // vector j goes to sum j % 4
    for (std::int64_t begin = 0; begin < vectors.height; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, vectors.height - begin);
      for (std::int64_t j = 0; j < count; ++j) {
        near[static_cast<std::size_t>(j)] = static_cast<float>(
            gamma * distance2(features.row(y), vectors.row(begin + j), features.width));
      }
      for (float& value : near) value = exp_minus(value);
      for (std::int64_t j = 0; j < count; ++j) {
        sums[static_cast<std::size_t>(j % 4)] +=
            coefficients[static_cast<std::size_t>(begin + j)] *
            static_cast<double>(near[static_cast<std::size_t>(j)]);
      }
    }
    decisions[static_cast<std::size_t>(y)] =
        ((sums[0] + sums[1]) + (sums[2] + sums[3])) + intercept;
  }
}

}  // namespace her2fast
