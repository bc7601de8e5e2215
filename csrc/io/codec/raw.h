// SPDX-License-Identifier: Apache-2.0
/// Uncompressed and Deflate tiles of interleaved 8-bit RGB. Knows no slide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast::io {

/// @param out (H, W, 3). @returns kOk, or kCorrupt where `bytes` is short (out is
/// undefined).
TileStatus decode_uncompressed(std::span<const std::byte> bytes,
                               ImageView<std::uint8_t> out);

/// A zlib stream (TIFF compression 8 and 32946).
/// @param horizontal_difference  TIFF predictor 2.
/// @returns kOk; kWarned where bytes follow the pixels; kCorrupt (out is undefined).
TileStatus decode_deflate(std::span<const std::byte> bytes, bool horizontal_difference,
                          ImageView<std::uint8_t> out);

}  // namespace her2fast::io
