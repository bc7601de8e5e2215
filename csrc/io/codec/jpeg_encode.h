// SPDX-License-Identifier: Apache-2.0
/// RGB to abbreviated JPEG streams that share one stream of tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "her2fast/image.h"

namespace her2fast::io {

/// Pixels that share one value of color: 2 x 2, 2 x 1 (across), 1.
enum class JpegChroma : std::uint8_t { k420, k422, k444 };

/// The tables of `quality` (1 to 100) for TIFF's JPEGTables tag; of any chroma.
std::vector<std::byte> jpeg_tables(int quality);

/// One tile as YCbCr without tables. The bytes depend on these arguments only.
/// @param rgb (H, W, 3). @throws std::runtime_error where libjpeg fails (memory)
std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb, int quality,
                                   JpegChroma chroma = JpegChroma::k420);

}  // namespace her2fast::io
