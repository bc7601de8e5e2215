// SPDX-License-Identifier: Apache-2.0
/// Slides: bytes in, tiles of pixels out.
///
/// Thread-safety: a `Slide` is immutable after `open`; `read_tile` and `read_region` may
/// be called from any number of threads, each with its own `DecodeScratch`. Ownership:
/// the slide keeps its `ByteSource`. Cost: `open` reads directories only; no pixel is
/// decoded. Label and macro images are never read; properties pass an allow-list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"

namespace her2fast {

/// Random access to bytes: a file (positioned reads, never mmap) or a host's callbacks.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::uint64_t size() const = 0;
  /// Reads exactly `size` bytes at `offset`. Thread-safe.
  /// @throws Error kTruncated (range beyond the end), kIo
  virtual void read(std::uint64_t offset, std::size_t size, std::byte* out) const = 0;
  /// A hint that these bytes will be read soon. Does nothing, or starts reading them in
  /// the background; never fails. Thread-safe.
  virtual void expect(std::uint64_t offset, std::uint64_t size) const;
  /// What errors call this source: a path or the host's name for it.
  virtual const std::string& name() const = 0;
};

/// @throws Error kNotFound, kNotRegular, kIo
std::shared_ptr<const ByteSource> open_file(const std::string& path);

struct Level {
  std::int64_t width_px = 0;
  std::int64_t height_px = 0;
  std::int32_t tile_width_px = 0;
  std::int32_t tile_height_px = 0;
  /// Level-0 px per level px as a rational: the integer n where the level is floor or
  /// ceil of level-0 / n (vendors cut remainders), otherwise level-0 size / level size.
  std::int64_t down_x_num = 1, down_x_den = 1;
  std::int64_t down_y_num = 1, down_y_den = 1;
  double downsample() const {
    return static_cast<double>(down_x_num) / static_cast<double>(down_x_den);
  }
};

enum class SpacingSource { kUser, kVendor, kTiffResolution, kNone };

struct SlideInfo {
  std::string format;         ///< "aperio", "generic-tiff", or OpenSlide's vendor name
  std::string reader;         ///< "native" or "openslide 4.0.0"
  std::vector<Level> levels;  ///< at least one, finest first
  std::optional<Spacing> spacing_x,
      spacing_y;  ///< as the file states; absent if it does not
  SpacingSource spacing_source = SpacingSource::kNone;
  std::map<std::string, std::string> properties;  ///< allow-listed: no patient data
};

/// Per-thread buffers and decoder state; reuse it, so that no tile allocates.
class DecodeScratch;
struct DecodeScratchDeleter {
  void operator()(DecodeScratch*) const;
};
using DecodeScratchPtr = std::unique_ptr<DecodeScratch, DecodeScratchDeleter>;
DecodeScratchPtr make_decode_scratch();

class Slide {
 public:
  virtual ~Slide() = default;
  virtual const SlideInfo& info() const = 0;

  /// Decodes one source tile at 1/denominator (1, 2, 4, 8; only what `can_scale` allows).
  /// @param out  (tile_height/denominator, tile_width/denominator, 3); every element is
  /// written.
  ///             Pixels beyond the level's extent are undefined and must not be used.
  /// @returns kOk, kWarned (decoder warnings; pixels written), kCorrupt or kMissing (out
  /// is white).
  /// @throws Error kIo only: damage in one tile is a status, not an exception.
  virtual TileStatus read_tile(int level, std::int64_t column, std::int64_t row,
                               int denominator, ImageView<std::uint8_t> out,
                               DecodeScratch& scratch) const = 0;
  /// True where the codec decodes this level at 1/denominator and the tile sides divide
  /// by it.
  virtual bool can_scale(int level, int denominator) const = 0;
  /// A hint that this tile will be read soon. Does nothing, or starts reading its bytes
  /// in the background; never fails.
  virtual void expect_tile(int level, std::int64_t column, std::int64_t row) const;
  /// Whether tiles are decoded several at once, so that naming them first is of use.
  virtual bool decodes_together() const { return false; }
  /// The caller is about to read this tile, with others that it names. Does nothing where
  /// tiles are not decoded together; never fails.
  virtual void will_read(int level, std::int64_t column, std::int64_t row) const;
  /// Size and SHA-256 over size, first and last 1 MiB and 64 evenly spread 64 KiB blocks;
  /// hex.
  virtual std::string fingerprint() const = 0;
};

/// Opens any supported slide: native containers first (csrc/io/container/formats.cpp
/// lists them in order), then OpenSlide.
/// @throws Error with an input code; the message names file, tag or tile, and the next
/// step.
std::shared_ptr<const Slide> open_slide(const std::string& path);
std::shared_ptr<const Slide> open_slide(
    std::shared_ptr<const ByteSource> source);  ///< native only

/// The frame a slide is measured in: `user_mpp` if given, else what the file states.
struct ResolvedFrame {
  SlideFrame frame;
  SpacingSource source = SpacingSource::kNone;
  std::optional<std::string>
      warning;  ///< `user_mpp` differs from the file by more than 2 %
};
/// @throws Error kNoSpacing, kBadSpacing (implausible, or x and y apart by more than 2 %)
ResolvedFrame resolve_frame(const SlideInfo& info, std::optional<double> user_mpp);

std::string_view spacing_source_name(
    SpacingSource source);  ///< "user", "vendor", "tiff-resolution", "none"

}  // namespace her2fast
