// SPDX-License-Identifier: Apache-2.0
/// Writes pyramidal tiled TIFF that OpenSlide, QuPath and this library open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast {

/// Sides of stored tiles, px; TIFF asks for multiples of 16.
inline constexpr std::int32_t kLeastTilePx = 64, kMostTilePx = 4096, kTileStepPx = 16;
inline constexpr std::int32_t kUsualTilePx = 256;
inline constexpr bool is_tile_px(std::int64_t side) {
  return side >= kLeastTilePx && side <= kMostTilePx && side % kTileStepPx == 0;
}
/// "a multiple of 16 px, 64 to 4096", for messages.
std::string tile_px_text();

struct PyramidOptions {
  double spacing_um = 0.0;              ///< level-0 spacing, required, 0.08 to 2.0
  std::int32_t tile_px = kUsualTilePx;  ///< of `is_tile_px`
  int jpeg_quality = 90;                ///< 1 to 100; 0 = Deflate, lossless
  std::vector<int> downsamples = {
      1, 4,
      16};  ///< of level 0; levels under one tile a side are left out, the first is 1
  bool aperio = false;    ///< Aperio ImageDescription ("Aperio ... |MPP = ...")
  std::string title;      ///< with `aperio`: "|Title = ..."; printable ASCII without '|'
  bool big_tiff = false;  ///< forced; otherwise BigTIFF only above `classic_bytes`
  int workers = 2;
  double spacing_y_um = 0.0;           ///< 0: that of x, which is `spacing_um`
  std::vector<std::byte> icc_profile;  ///< kept as it is; empty: none
  /// Tiles of more bytes go into a BigTIFF. Directories of the largest slides stay below
  /// 64 MiB, classic TIFF ends at 4 GiB; tests lower it.
  std::uint64_t classic_bytes = std::uint64_t{0xffffffff} - (64u << 20);
};

/// Supplies rows of level 0: fills (rows, width, 3) for [y_px, y_px + rows).
using RowSource = std::function<void(std::int64_t y_px, ImageView<std::uint8_t> rows)>;

/// Streams level 0 once; memory is a band per level. Written to a temporary name, then
/// renamed.
/// @throws Error kIo, kDiskFull; std::invalid_argument
void write_pyramid(const std::string& path, std::int64_t width_px, std::int64_t height_px,
                   const RowSource& rows, const PyramidOptions& options);

}  // namespace her2fast
