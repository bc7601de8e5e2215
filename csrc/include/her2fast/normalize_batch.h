// SPDX-License-Identifier: Apache-2.0
/// Pixels as a model takes them: interleaved bytes to normalized planes.
#pragma once

#include <array>
#include <cstdint>

namespace her2fast {

/// (v / 255 - mean[c]) / std[c], every step rounded to float32 as torch's ToTensor and
/// Normalize do.
/// @param rgb  (n, height, width, 3)
/// @param out  (n, 3, height, width); every element is written. Float32, or IEEE float16
///             (rounded once more, to the nearest, ties to even)
/// @throws std::invalid_argument: sizes not of 0 to 2^30, or above 2^40 pixels; a mean
///         that is not finite or a deviation not above 0
/// Thread-safe. Does not allocate. The device's twin gives the same bits.
void normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                     std::int64_t width, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, float* out);
void normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                     std::int64_t width, const std::array<float, 3>& mean,
                     const std::array<float, 3>& std, std::uint16_t* out);

}  // namespace her2fast
