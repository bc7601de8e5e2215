// SPDX-License-Identifier: Apache-2.0
/// RGB to abbreviated JPEG streams that share one stream of tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "her2fast/image.h"
#include "io/codec/jpeg_quantization.h"

namespace her2fast::io {

/// These tables and libjpeg's own Huffman tables, for TIFF's JPEGTables tag; of any
/// chroma.
std::vector<std::byte> jpeg_tables(const JpegQuantization& tables);

/// One tile as YCbCr without tables. The bytes depend on these arguments only.
/// @param rgb (H, W, 3). @throws std::runtime_error where libjpeg fails (memory)
std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb,
                                   const JpegQuantization& tables,
                                   JpegChroma chroma = JpegChroma::k420);

/// The same with libjpeg's tables of a quality of 1 to 100.
inline std::vector<std::byte> jpeg_tables(int quality) {
  return jpeg_tables(jpeg_quantization(quality));
}
inline std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb,
                                          int quality) {
  return encode_jpeg(rgb, jpeg_quantization(quality));
}

}  // namespace her2fast::io
