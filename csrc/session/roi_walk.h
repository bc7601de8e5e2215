// SPDX-License-Identifier: Apache-2.0
/// Walks the tiles of a measurement through a region of interest.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/measurement.h"
#include "her2fast/roi.h"

namespace her2fast {

/// One tile as the region cuts it. Slot arrays are empty where the tile has no tissue
/// (tumor).
struct TileInRoi {
  std::int64_t index = 0;
  const TileRecord* record = nullptr;
  std::int64_t covered_px = 0;  ///< slide pixels of the tile inside the region
  std::vector<std::uint32_t>
      tissue_px;  ///< (slots), prorated by area where a patch is cut
  std::vector<std::uint32_t> tumor_px;  ///< (slots), exact
};

/// Visits every tile that the region touches, row by row.
class RoiWalker {
 public:
  RoiWalker(const Measurement& measurement, const Roi& roi);
  /// Moves to the next touched tile; false at the end.
  bool next(TileInRoi& tile);

 private:
  void load_band(std::int64_t tile_row);
  void cut(TileInRoi& tile, std::int64_t x_begin_px);

  const Measurement& m_;
  const Roi& roi_;
  std::int64_t width_px_, height_px_;
  std::int64_t tile_row_ = -1, tile_column_ = 0;
  std::int64_t band_rows_ = 0;                      // slide rows of this band
  std::vector<std::vector<RoiSpan>> spans_;         // per row of the band
  std::vector<std::int64_t> covered_;               // per tile of the band
  std::vector<std::uint64_t> inside_, tumor_bits_;  // (tile_px, words a row) of one tile
};

}  // namespace her2fast
