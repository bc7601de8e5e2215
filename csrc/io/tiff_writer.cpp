// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tiff_writer.h"

#include <algorithm>

#include "io/pyramid_writer.h"

namespace her2fast {

std::string tile_px_text() {
  return "a multiple of " + std::to_string(kTileStepPx) + " px, " +
         std::to_string(kLeastTilePx) + " to " + std::to_string(kMostTilePx);
}

void write_pyramid(const std::string& path, std::int64_t width_px, std::int64_t height_px,
                   const RowSource& rows, const PyramidOptions& options) {
  io::check_pyramid(width_px, height_px, options);
  io::PyramidWriter writer(path, width_px, height_px, options);
  // Bands of one tile row: what level 0 holds anyway.
  const std::int64_t band_px = std::min<std::int64_t>(options.tile_px, height_px);
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(band_px * width_px * 3));
  for (std::int64_t y = 0; y < height_px; y += band_px) {
    const std::int64_t count = std::min(band_px, height_px - y);
    const ImageView<std::uint8_t> view(buffer.data(), count, width_px, 3);
    rows(y, view);
    writer.add_band(view, {}, {});
  }
  writer.finish();
}

}  // namespace her2fast
