// SPDX-License-Identifier: Apache-2.0
/// Uncompressed and Deflate tiles of interleaved 8-bit RGB. Knows no slide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast::io {

/// @param out (H, W, 3). @returns kOk, or kCorrupt where `bytes` is short (out is
/// undefined).
TileStatus decode_uncompressed(std::span<const std::byte> bytes,
                               ImageView<std::uint8_t> out);

/// Zlib streams (TIFF compression 8 and 32946). One object per thread: its state is
/// reused, so that no tile allocates.
class InflateDecoder {
 public:
  InflateDecoder();
  ~InflateDecoder();
  InflateDecoder(const InflateDecoder&) = delete;
  InflateDecoder& operator=(const InflateDecoder&) = delete;

  /// @param horizontal_difference  TIFF predictor 2.
  /// @param out (H, W, 3).
  /// @returns kOk; kWarned where pixels follow those of the tile; kCorrupt (out is
  /// undefined).
  TileStatus decode(std::span<const std::byte> bytes, bool horizontal_difference,
                    ImageView<std::uint8_t> out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace her2fast::io
