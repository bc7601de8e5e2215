// SPDX-License-Identifier: Apache-2.0
#include "her2fast/cell_class.h"

#include <bit>
#include <cstdint>

namespace her2fast {

CellClass classify_cell(std::uint32_t stained, std::uint32_t dab_sum, Spacing grid,
                        std::int32_t step) {
  const std::int32_t rays = std::popcount(stained);
  if (rays < kCellCuts.least_rays) return {};
  // sum [1/100 OD, step^2 pixels to one of the grid] * pm / (100 * step^2 * 1e6 * rays)
  // is OD x um; both sides times 1000, and whole numbers below 2^63.
  const auto reaches = [&](std::int32_t milli) {
    return std::int64_t{dab_sum} * grid.pm >=
           std::int64_t{milli} * 100'000 * step * step * rays;
  };
  CellClass out;
  out.complete = rays >= kCellCuts.complete_rays;
  if (!reaches(kCellCuts.moderate_milli)) {
    out.her2 = 1;
  } else if (out.complete) {
    out.her2 = reaches(kCellCuts.intense_milli) ? 3 : 2;
  } else {
    out.her2 = 2;
    out.unusual = true;
  }
  return out;
}

}  // namespace her2fast
