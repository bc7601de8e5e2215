// SPDX-License-Identifier: Apache-2.0
/// What a superpixel is told by: its colors and its texture (Khameneh et al., section
/// 2.2; decisions.md K4). Integers only.
///
/// The paper names 224 bins of color and does not say of what. Here: seven planes of 32
/// bins, so that no color is read off one plane alone: R, G, B, CIELAB a* and b*,
/// hematoxylin and DAB (as `cell_stains` has them). Texture: uniform local binary
/// patterns with 8 neighbors at a distance of 1 px (Ojala et al., TPAMI 2002;24:971).
#pragma once

#include <cstdint>

#include "her2fast/image.h"
#include "her2fast/tissue_mask.h"

namespace her2fast {

inline constexpr std::int32_t kColorPlanes = 7;
inline constexpr std::int32_t kColorBins = 32;  // of a plane
/// 0 to 8 neighbors in one arc that are as light as the pixel or lighter, and all others.
inline constexpr std::int32_t kPatternBins = 10;
inline constexpr std::int32_t kSuperpixelFeatures =
    kColorPlanes * kColorBins + kPatternBins;

/// Local binary patterns of a gray picture.
///
/// A diagonal neighbor is what bilinear interpolation gives at 0.70711 px along x and y,
/// compared exactly.
/// @param gray      (H, W).
/// @param patterns  (H, W), every element is written: 0 to 9. What lies outside the
///                  picture is 0.
/// @throws std::invalid_argument  shapes differ.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe.
void local_patterns(ImageView<const std::uint8_t> gray, ImageView<std::uint8_t> patterns,
                    Device device = Device::kCpu);

/// Pixels of every superpixel in every bin.
///
/// @param rgb     (H, W, 3).
/// @param labels  (H, W): 0 to count - 1.
/// @param white   color of empty glass, for the stains.
/// @param counts  (count, kSuperpixelFeatures), every element is written. Bins of R, G,
///                B: value / 8. a*: from -24, b*: from -32 in steps of 2. Hematoxylin:
///                steps of 0.025, DAB of 0.08 of optical density. What lies beyond falls
///                into the last bin on its side. Patterns are those of the luminance
///                (77 R + 150 G + 29 B + 128) / 256; the picture's outermost pixels have
///                none.
/// @throws std::invalid_argument  shapes, the white point or a label are out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe. Scratch: 5 bytes a pixel.
void superpixel_features(ImageView<const std::uint8_t> rgb,
                         ImageView<const std::int32_t> labels, Rgb white,
                         ImageView<std::uint32_t> counts, Device device = Device::kCpu);

/// A share of 1 as a feature.
inline constexpr std::int32_t kFeatureOne = 2560;

/// Counts as features: the root of a bin's share of its plane, times kFeatureOne,
/// rounded.
///
/// Euclid's distance between roots of shares is Hellinger's between histograms: a bin of
/// few pixels is not drowned by one of many.
/// @param counts    (n, kSuperpixelFeatures), from `superpixel_features`.
/// @param features  (n, kSuperpixelFeatures), every element is written: 0 to kFeatureOne.
/// @throws std::invalid_argument  shapes differ.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe.
void superpixel_roots(ImageView<const std::uint32_t> counts,
                      ImageView<std::int16_t> features, Device device = Device::kCpu);

}  // namespace her2fast
