// SPDX-License-Identifier: Apache-2.0
// Any bytes as a slide: an Error, or levels whose tiles have a status. Covers NDPI's
// index and the scan for its markers.
#include <vector>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace her2fast;
  static const DecodeScratchPtr scratch = make_decode_scratch();
  try {
    const auto slide = open_slide(fuzz::source_of(data, size));
    const SlideInfo& info = slide->info();
    std::vector<std::uint8_t> rgb;
    int left = 12;  // tiles
    for (std::size_t i = 0; i < info.levels.size(); ++i) {
      const Level& level = info.levels[i];
      // Large tiles cost time and show nothing that small ones do not.
      if (std::int64_t{level.tile_width_px} * level.tile_height_px > 1 << 17) continue;
      const std::int64_t columns =
          (level.width_px + level.tile_width_px - 1) / level.tile_width_px;
      const std::int64_t rows =
          (level.height_px + level.tile_height_px - 1) / level.tile_height_px;
      for (std::int64_t n = 0; n < columns * rows && left > 0; ++n, --left) {
        const int denominator = slide->can_scale(static_cast<int>(i), 2) && n % 2 ? 2 : 1;
        const std::int64_t width = level.tile_width_px / denominator;
        const std::int64_t height = level.tile_height_px / denominator;
        rgb.resize(static_cast<std::size_t>(width * height * 3));
        slide->read_tile(static_cast<int>(i), n % columns, n / columns, denominator,
                         {rgb.data(), height, width, 3}, *scratch);
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
