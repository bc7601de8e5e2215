// SPDX-License-Identifier: Apache-2.0
/// Slides into pyramidal TIFF: of any format that opens, whole or a rectangle of it.
///
/// A tile of the source that is missing, corrupt or gave a decoder warning never becomes
/// a sound one: what it touches is left out of the new file, where readers count it as
/// missing. Label and macro images and vendor texts do not come along.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "her2fast/slide.h"
#include "her2fast/tiff_writer.h"

namespace her2fast {

struct ConvertOptions {
  /// `tile_px` gives way to the source's where tiles are copied. The color profile is the
  /// source's, whatever stands here.
  PyramidOptions pyramid;
  /// Level-0 pixels of the source; a width of 0 is the whole slide.
  std::int64_t x0_px = 0, y0_px = 0, width_px = 0, height_px = 0;
  /// Copies JPEG tiles of level 0 as they stand, where they are square and the rectangle
  /// begins at one's corner; coarser levels are always made anew.
  bool copy_tiles = true;
};

struct ConvertReport {
  bool copied = false;    ///< level 0 holds the source's bytes
  bool big_tiff = false;  ///< of the new file
  std::int64_t levels = 0;
  std::int64_t tiles = 0;  ///< of the new level 0, as are the next two
  std::int64_t missing = 0;
  std::int64_t damaged = 0;  ///< corrupt or with a decoder warning
};

/// Called after each band with the rows done; false ends the conversion.
using ConvertProgress = std::function<bool(std::int64_t rows_done_px)>;

/// Memory: a band of `tile_px` rows of each level, twice for level 0, and the source
/// tiles under it. Written to a temporary name, then renamed; replaces what stands there.
/// @throws Error kIo, kDiskFull, kCancelled, kUnsupportedFormat;
/// std::invalid_argument  an option, or a rectangle that is not inside the slide
ConvertReport convert_slide(const std::shared_ptr<const Slide>& slide,
                            const std::string& path, const ConvertOptions& options,
                            const ConvertProgress& progress = nullptr);

}  // namespace her2fast
