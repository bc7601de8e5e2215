// SPDX-License-Identifier: Apache-2.0
/// Labels the components of one tile in one sweep over its rows: mask (8-connected) and
/// what is not mask (4-connected) together, since each bounds the other.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/image.h"
#include "her2fast/membrane.h"
#include "kernels/membrane_tile.h"

namespace her2fast {

struct SweptMembrane {
  MembraneSums sums;
  bool on_border;
};

struct SweptGap {
  GapSums sums;
  bool on_border;
  std::int32_t above;  ///< membrane above its first pixel; -1 in the tile's first row
};

/// Rows as the columns where they turn: start and end of each run of mask. Gap k of a row
/// lies before its run k, the last one behind all of them.
struct SweptTile {
  std::int32_t height = 0, width = 0;
  /// Offsets into `turns` by row, height + 1; run k of row y is turns[row[y] + 2 * k].
  std::vector<std::int32_t> row;
  std::vector<std::int32_t> turns;
  /// Membrane of run row[y] / 2 + k; gap of place row[y] / 2 + y + k, which is
  /// undefined where the row begins or ends with a run.
  std::vector<std::int32_t> run_label, gap_label;
  std::vector<SweptMembrane> membranes;  ///< in the order of their first pixels
  std::vector<SweptGap> gaps;

  std::int32_t runs_in(std::int32_t y) const { return (row[y + 1] - row[y]) / 2; }
  const std::int32_t* turns_of(std::int32_t y) const { return turns.data() + row[y]; }
  const std::int32_t* run_labels(std::int32_t y) const {
    return run_label.data() + row[y] / 2;
  }
  const std::int32_t* gap_labels(std::int32_t y) const {
    return gap_label.data() + row[y] / 2 + y;
  }
};

/// Windows of 2 x 2 are counted where all four pixels lie within the tile.
SweptTile sweep_tile(const ImageView<const std::uint8_t>& mask);

}  // namespace her2fast
