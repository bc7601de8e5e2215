// SPDX-License-Identifier: Apache-2.0
/// Cells round their nuclei, and how much of each cell's outline is stained
/// (decisions.md K6, K7, K9). On the grid of her2fast/nuclei.h.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "her2fast/nuclei.h"

namespace her2fast {

/// Directions in which a cell's outline is looked for.
inline constexpr std::int32_t kCellRays = 32;
/// No cell reaches further from its seed than this; pixels of the grid.
inline constexpr std::int32_t kCellRadiusPx = 36;
/// A cell depends on no pixel of the grid further from its seed than this: its neighbors'
/// seeds, and what those depend on.
inline constexpr std::int32_t kCellsReachPx = 2 * kCellRadiusPx + kNucleiReachPx;

/// How much more DAB than glass what a mask holds must have to count as stain: less is
/// not perceptible. Hundredths of optical density, the mean of what one direction
/// crosses. The most that cost no 1+ cell of 24 phantoms; lines between pale blue nuclei
/// have less, which a network may take for faint membrane (docs/design/cells.md).
inline constexpr std::int32_t kFaintestDab = 3;

struct Cell {
  std::int32_t x, y;  ///< seed of its nucleus: the cell's identity; pixels of the grid
  std::int32_t px;    ///< area of its region, pixels of the grid
  std::int32_t nucleus_px;  ///< of it, as dark as a nucleus
  /// Pixels from the seed to the outline, in direction 2 pi k / kCellRays, y down.
  std::array<std::uint8_t, kCellRays> ray_px;
  /// Bit k: perceptible membrane lies there. Completeness is the share of directions,
  /// each as good as the other: through a gap a ray runs on into the next cell, and its
  /// length would let one gap count as several.
  std::uint32_t stained;
  std::uint32_t dab_sum;  ///< of the membrane there, hundredths, over `dab_px`
  std::uint32_t dab_px;   ///< pixels of the picture

  bool operator==(const Cell&) const = default;
};

/// Cells whose seeds lie within the inner part of the planes: each belongs to the one
/// tile that holds its seed, and is the same whatever the tiling.
///
/// A cell is what is nearer to its nucleus than to any other without crossing membrane,
/// as far as it reaches; a step counts double where it is not as dark as a nucleus, so
/// that borders run between nuclei and not between their middles. Ties go to the nucleus
/// that is first in reading order.
/// @param hematoxylin, mask, step  as for `nuclei`.
/// @param dab      (h * step, w * step) hundredths, from `cell_stains`.
/// @param halo_px  of the grid, on all four sides; at least kCellsReachPx.
/// @param glass_dab  what empty glass has in the DAB plane, 0 to 255; 0 where its color
///                 was the white point, or is not known.
/// @return  sorted by (y, x), counted from the corner of the inner part.
/// @throws std::invalid_argument  shapes, `step`, `halo_px` or `glass_dab` are out of
///                                range.
/// @throws DeviceError            this build or this machine lacks `device`.
/// Thread-safe.
std::vector<Cell> cells(ImageView<const std::uint16_t> hematoxylin,
                        ImageView<const std::uint8_t> dab,
                        ImageView<const std::uint8_t> mask, std::int32_t step,
                        std::int32_t halo_px, std::int32_t glass_dab = 0,
                        Device device = Device::kCpu);

}  // namespace her2fast
