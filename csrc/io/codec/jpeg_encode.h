// SPDX-License-Identifier: Apache-2.0
/// RGB to abbreviated JPEG streams that share one stream of tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "her2fast/image.h"

namespace her2fast::io {

/// The tables of `quality` (1 to 100) for TIFF's JPEGTables tag.
std::vector<std::byte> jpeg_tables(int quality);

/// One tile as YCbCr 4:2:0 without tables. The bytes depend on pixels and quality only.
/// @param rgb (H, W, 3). @throws std::runtime_error where libjpeg fails (memory)
std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb, int quality);

}  // namespace her2fast::io
