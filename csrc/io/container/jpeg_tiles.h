// SPDX-License-Identifier: Apache-2.0
/// JPEG tiles as a file holds them, for who copies them or decodes them elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace her2fast::io {

/// How JPEG tiles are to be understood: what a copy of them needs.
struct JpegTileFormat {
  bool rgb = false;  ///< else YCbCr
  std::vector<std::byte> tables;
  std::vector<std::uint64_t> subsampling;  ///< as tagged; empty where it is not
};

/// Slides whose JPEG tiles can be copied as they stand.
class HasJpegTiles {
 public:
  virtual ~HasJpegTiles() = default;
  /// Nothing where the level has no JPEG tiles.
  virtual std::optional<JpegTileFormat> jpeg_format(int level) const = 0;
  /// The tile's bytes; empty where it is missing. @throws Error kIo
  virtual std::vector<std::byte> jpeg_bytes(int level, std::int64_t column,
                                            std::int64_t row) const = 0;
};

}  // namespace her2fast::io
