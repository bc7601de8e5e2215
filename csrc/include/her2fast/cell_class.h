// SPDX-License-Identifier: Apache-2.0
/// The class of a cell from how much of its outline is stained and how strongly: the only
/// definition of these cuts (docs/design/cells.md says how they were found).
#pragma once

#include <cstdint>

#include "her2fast/cells.h"
#include "her2fast/geometry.h"

namespace her2fast {

/// Intensity is what a low power sees: density times thickness of the membrane, averaged
/// over the stained directions, in thousandths of optical density x micrometer. Blur and
/// spacing leave it as it is, where the density alone fades with every thin membrane.
struct CellCuts {
  /// Fewer stained directions of 32 are no membrane staining: a cell without any has its
  /// stained neighbors' on those sides, up to a quarter of its outline.
  std::int32_t least_rays = 8;
  /// As many or more are complete: three quarters. Corners and the rays' own coarseness
  /// cost true 3+ cells of phantoms up to a quarter.
  std::int32_t complete_rays = 24;
  std::int32_t moderate_milli = 180;  ///< less is faint
  std::int32_t intense_milli = 520;   ///< less is weak to moderate
};
inline constexpr CellCuts kCellCuts{};

struct CellClass {
  /// 0 no membrane staining; 1 faint; 2 weak to moderate; 3 complete and intense.
  std::int8_t her2 = 0;
  bool complete = false;
  /// Moderate to intense and incomplete: counted as 2, a pattern that the guideline calls
  /// unusual (decisions.md, Guideline rules).
  bool unusual = false;
  bool operator==(const CellClass&) const = default;
};

/// @param grid  spacing of the grid the cell was found on.
/// @param step  pixels of the picture along one of the grid, 1 or 2.
/// Pure integers: the same everywhere.
CellClass classify_cell(std::uint32_t stained, std::uint32_t dab_sum, Spacing grid,
                        std::int32_t step);

}  // namespace her2fast
