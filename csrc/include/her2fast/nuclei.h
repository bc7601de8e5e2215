// SPDX-License-Identifier: Apache-2.0
/// Nuclei from the hematoxylin channel, and the stain planes they and the cells are found
/// in (Khameneh et al., section 2.2; decisions.md K3, K6).
///
/// Nuclei and cells live on a grid of about 0.5 um/px, finer pictures being averaged
/// `step` by `step`: a nucleus of 5 um is 10 px wide there, and a quarter of the work is
/// left. Integers only; an answer depends on nothing beyond its reach, so tiles with
/// enough halo give what the picture in one piece gives.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/image.h"
#include "her2fast/tissue_mask.h"

namespace her2fast {

/// Hematoxylin and DAB in pictures that are averaged `step` x `step`, 1 or 2.
inline constexpr std::int32_t kMaxCellStep = 2;
/// Hematoxylin is stored in 1/4096 of optical density, and no denser than this: a clump
/// must not hide the nuclei round it.
inline constexpr std::int32_t kHematoxylinOne = 4096;
inline constexpr std::int32_t kHematoxylinMost = 3277;  // 0.8

/// A nucleus depends on no pixel of the grid further from its seed than this.
inline constexpr std::int32_t kNucleiReachPx = 53;

/// The two stains of a picture, by the H-DAB matrix (Ruifrok and Johnston 2001; K3).
///
/// @param rgb          (H, W, 3); H and W multiples of `step`.
/// @param hematoxylin  (H / step, W / step), every element is written: mean over the
///                     block, less 0.3 of its DAB, in 1/4096, 0 to kHematoxylinMost.
///                     Brown that has run into a cell must not look like its nucleus.
/// @param dab          (H, W), every element is written: hundredths, 0 to 255.
/// @throws std::invalid_argument  shapes, `step` or the white point are out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe. No halo is needed.
void cell_stains(ImageView<const std::uint8_t> rgb, Rgb white, std::int32_t step,
                 ImageView<std::uint16_t> hematoxylin, ImageView<std::uint8_t> dab,
                 Device device = Device::kCpu);

/// The middle of a nucleus; a pixel of the grid.
struct Nucleus {
  std::int32_t x, y;
  bool operator==(const Nucleus&) const = default;
};

/// Nuclei whose seeds lie within the inner part of the planes.
///
/// Pixels darker in hematoxylin than the mean of what is not membrane within 24 px; small
/// gaps closed; distance from their rim, capped at 16 px and smoothed; a seed is the
/// highest within 6 px. Membrane parts nuclei.
/// @param hematoxylin  (h, w), from `cell_stains`.
/// @param mask         (h * step, w * step), any value but 0 is membrane.
/// @param halo_px      of the grid, on all four sides; at least kNucleiReachPx. Beyond
///                     the slide: hematoxylin 0, mask 0.
/// @param dark         (h, w) or no data: pixels of nuclei, 0 or 1. Those within
///                     kNucleiReachPx of the border are not settled.
/// @return  sorted by (y, x), counted from the corner of the inner part.
/// @throws std::invalid_argument  shapes, `step` or `halo_px` are out of range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe.
std::vector<Nucleus> nuclei(ImageView<const std::uint16_t> hematoxylin,
                            ImageView<const std::uint8_t> mask, std::int32_t step,
                            std::int32_t halo_px, ImageView<std::uint8_t> dark = {},
                            Device device = Device::kCpu);

}  // namespace her2fast
