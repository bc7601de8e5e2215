// SPDX-License-Identifier: Apache-2.0
/// A slide made of tiled TIFF directories: what Aperio and generic TIFF share.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "her2fast/slide.h"
#include "io/codec/jpeg_whole.h"
#include "io/container/jpeg_tiles.h"
#include "io/container/tiff_directory.h"

namespace her2fast::io {

// Scanners write tiles of 256 to 1024 px; a thread holds one decoded tile (here 48 MiB).
inline constexpr std::uint64_t kMaxTilePx = std::uint64_t{1} << 24;
inline constexpr std::uint64_t kMaxTileSidePx = kMaxJpegSidePx;
inline constexpr std::size_t kMaxIccBytes = std::size_t{16} << 20;  // a camera's: 2 MiB

enum class TiffCodec { kUncompressed, kJpegYCbCr, kJpegRgb, kDeflate };

struct TiledImage {
  std::size_t directory = 0;
  std::int64_t width_px = 0, height_px = 0;
  std::int32_t tile_width_px = 0, tile_height_px = 0;
  std::int64_t columns = 0, rows = 0;
  TiffCodec codec = TiffCodec::kUncompressed;
  bool horizontal_difference = false;
  std::vector<std::byte> jpeg_tables;
  std::vector<std::uint64_t> subsampling;  ///< of JPEG, as tagged
  std::vector<std::uint64_t> offsets;      ///< (rows, columns); 0 is a missing tile
  std::vector<std::uint32_t> bytes;        ///< (rows, columns); 0 is a missing tile
};

/// Bytes that a JPEG of that many pixels can take: noise at quality 100 stays below twice
/// its raw size, so more is no image.
constexpr std::uint64_t max_jpeg_bytes(std::uint64_t area_px) {
  return 4 * 3 * area_px + (1 << 20);
}

void fill_white(ImageView<std::uint8_t> out);

/// Slides whose file may hold a color profile; conversion keeps it.
class HasIccProfile {
 public:
  virtual ~HasIccProfile() = default;
  /// Empty where there is none. @throws Error kIo
  virtual std::vector<std::byte> icc_profile() const = 0;
};

/// Checks that every strip or tile of every directory lies inside the file; their bytes
/// are not read, so labels and macros stay unread.
/// @throws Error kTruncated, kBadHeader, kLimitExceeded
void check_extents(const TiffFile& tiff);

bool is_tiled(const TiffFile& tiff, const TiffDirectory& directory);

/// Why a directory's pixels cannot be read here; nothing where they can.
/// kUnsupportedPixels: another layout than interleaved 8-bit RGB.
/// kUnsupportedFormat: another compression (OpenSlide may know it).
std::optional<Error> pixel_obstacle(const TiffFile& tiff, const TiffDirectory& directory);

/// Width and height. @throws Error kBadHeader, kLimitExceeded
std::pair<std::int64_t, std::int64_t> image_size(const TiffFile& tiff,
                                                 const TiffDirectory& directory);

/// A directory without `pixel_obstacle`. @throws Error kBadHeader, kLimitExceeded
TiledImage load_tiled(const TiffFile& tiff, const TiffDirectory& directory);

/// Spacing by the resolution tags: an inch is 25400 um, a cm 10000 um; without unit,
/// none.
void set_resolution_spacing(const TiffFile& tiff, const TiffDirectory& directory,
                            SlideInfo& info);

/// Sets Level.down_* of every level against the first.
void set_downsamples(std::vector<Level>& levels);

/// Finest first. `info` carries format, spacing and properties; the levels are filled in
/// here.
std::shared_ptr<const Slide> make_tiff_slide(const TiffFile& tiff, SlideInfo info,
                                             std::vector<TiledImage> images);

}  // namespace her2fast::io
