// SPDX-License-Identifier: Apache-2.0
// A slide of a hundred tiles whose sides no tile divides, measured at its own spacing;
// its pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "her2fast/session.h"

namespace her2fast {

inline PatchMethodSpec small_spec() {
  PatchMethodSpec spec;
  spec.frame = {1500, 1100, Spacing::from_um(1.0), Spacing::from_um(1.0)};
  spec.spacing = Spacing::from_um(1.0);
  spec.patch_px = 32;
  spec.tile_px = 128;
  spec.halo_px = 32;
  spec.class_names = {"0", "1+", "2+", "3+"};
  spec.classify_batch = 5;
  spec.segment_batch = 3;
  return spec;
}

/// Brown blobs on white: some tiles hold none, some all, most a part.
inline std::vector<std::uint8_t> pixels_of(const ReadRequest& r) {
  std::vector<std::uint8_t> rgb;
  for (std::int64_t y = r.y_px; y < r.y_px + r.height_px; ++y) {
    for (std::int64_t x = r.x_px; x < r.x_px + r.width_px; ++x) {
      const bool tissue = (x / 70 + y / 90) % 3 == 0 && x < 1300;
      const auto shade = static_cast<std::uint8_t>((x * 5 + y * 3) % 60);
      rgb.push_back(tissue ? static_cast<std::uint8_t>(150 + shade) : 255);
      rgb.push_back(tissue ? static_cast<std::uint8_t>(100 + shade) : 255);
      rgb.push_back(tissue ? static_cast<std::uint8_t>(60 + shade) : 255);
    }
  }
  return rgb;
}

inline void push_all(Session& session) {
  for (;;) {
    const auto requests = session.wanted(4, true);
    if (requests.empty()) return;
    for (const ReadRequest& r : requests) {
      const auto rgb = pixels_of(r);
      session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
    }
  }
}

}  // namespace her2fast
