// SPDX-License-Identifier: Apache-2.0
/// JPEG tiles to RGB, by libjpeg-turbo. Knows no slide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast::io {

/// How the three components are coded. TIFF's photometric tag decides, never the stream:
/// Aperio writes RGB-coded JPEG without an Adobe marker, which libjpeg would take for
/// YCbCr.
enum class JpegColor { kYCbCr, kRgb };

/// One decompressor, reused for tile after tile. One thread at a time.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  /// @param tables  an abbreviated stream of tables (TIFF JPEGTables), or empty.
  /// @param width_px, height_px  what the stream must hold: another size is kCorrupt.
  /// @param out  (height/denominator, width/denominator, 3), written straight from the
  /// decoder.
  /// @returns kOk, kWarned (the decoder met damage and went on) or kCorrupt (out is
  /// undefined).
  TileStatus decode(std::span<const std::byte> tables, std::span<const std::byte> stream,
                    JpegColor color, std::int64_t width_px, std::int64_t height_px,
                    int denominator, ImageView<std::uint8_t> out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace her2fast::io
