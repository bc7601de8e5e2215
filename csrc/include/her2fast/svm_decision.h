// SPDX-License-Identifier: Apache-2.0
/// The decision of a support vector machine with an RBF kernel (Khameneh et al., section
/// 2.3; decisions.md K4).
///
/// Features are integers, so distances are exact. The exponential is computed here from
/// multiplications and additions in a fixed order: the same bits on every machine.
#pragma once

#include <cstdint>
#include <span>

#include "her2fast/image.h"

namespace her2fast {

/// Squared distances stay in 32 bits: 2560^2 * 320 < 2^31.
inline constexpr std::int32_t kMostSvmFeatures = 320;
inline constexpr std::int32_t kMostSvmValue = 2560;

/// sum_j coefficient_j * exp(-gamma * |x - v_j|^2) + intercept, for every row x.
///
/// @param features      (n, d) integers of 0 to kMostSvmValue, d at most
///                      kMostSvmFeatures.
/// @param vectors       (m, d): the support vectors, alike.
/// @param coefficients  (m): alpha times the sign of the class.
/// @param gamma         over 0; of the features as they are given.
/// @param decisions     (n), every element is written. Above 0: the second class. Within
///                      1e-10 * sum |coefficient| of exact.
/// @throws std::invalid_argument  shapes, values or gamma are out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe. Cost: n * m * d.
void svm_decision(ImageView<const std::int16_t> features,
                  ImageView<const std::int16_t> vectors,
                  std::span<const double> coefficients, double intercept, double gamma,
                  std::span<double> decisions, Device device = Device::kCpu);

}  // namespace her2fast
