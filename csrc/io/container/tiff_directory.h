// SPDX-License-Identifier: Apache-2.0
/// The directories of a classic TIFF or BigTIFF, in either byte order, or of Hamamatsu's
/// NDPI: classic little-endian TIFF whose offsets have 8 bytes, and whose directories end
/// with the high words of their entries' values.
///
/// Nothing is allocated from a number in the file before that number was checked against
/// the file's size and the limits below. Every value range is checked to lie inside the
/// file when it is parsed, so that a truncated file fails at open. Immutable after
/// construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"

namespace her2fast::io {

namespace tag {
inline constexpr std::uint16_t kNewSubfileType = 254, kImageWidth = 256,
                               kImageLength = 257, kBitsPerSample = 258,
                               kCompression = 259, kPhotometric = 262,
                               kImageDescription = 270, kStripOffsets = 273,
                               kSamplesPerPixel = 277, kStripByteCounts = 279,
                               kXResolution = 282, kYResolution = 283,
                               kPlanarConfig = 284, kResolutionUnit = 296,
                               kSoftware = 305, kPredictor = 317, kTileWidth = 322,
                               kTileLength = 323, kTileOffsets = 324,
                               kTileByteCounts = 325, kSubIfds = 330, kSampleFormat = 339,
                               kJpegTables = 347, kYCbCrSubSampling = 530, kXmp = 700,
                               kIccProfile = 34675, kNdpiMark = 65420,
                               kNdpiMagnification = 65421, kNdpiFocalPlane = 65424,
                               kNdpiRestartLow = 65426, kNdpiRestartHigh = 65432;
}  // namespace tag

// A slide has about ten directories of about twenty entries; OME series have some
// hundred.
inline constexpr std::size_t kMaxDirectories = 1024;
inline constexpr std::size_t kMaxEntriesPerDirectory = 1024;
inline constexpr std::size_t kMaxEntries = std::size_t{1} << 16;
// 4 million tiles of 256 px are a slide of 524,288 px a side: 0.13 m at 0.25 um/px.
inline constexpr std::uint64_t kMaxTiles = std::uint64_t{1} << 22;

struct TiffField {
  std::uint16_t tag = 0;
  std::uint16_t type = 0;
  std::uint64_t count = 0;
  std::uint64_t position = 0;  ///< of the value's bytes in the file, inside it
  std::uint32_t high = 0;  ///< NDPI: the high word of a single LONG that stands inline
};

struct TiffDirectory {
  std::size_t index = 0;  ///< in the order found; sub-directories come after the chain
  bool is_sub = false;    ///< from SubIFDs of the first directory
  std::vector<TiffField> fields;
};

class TiffFile {
 public:
  /// "II*\0", "MM\0*" or their BigTIFF forms at the start.
  static bool has_magic(const ByteSource& source);
  /// True where a first directory, read with 4 or with Hamamatsu's 8 byte offsets, has
  /// their mark.
  static bool is_ndpi(const ByteSource& source);

  /// @throws Error kTruncated, kBadHeader, kIfdCycle, kLimitExceeded, kIo
  explicit TiffFile(std::shared_ptr<const ByteSource> source);

  const std::vector<TiffDirectory>& directories() const { return directories_; }
  const std::shared_ptr<const ByteSource>& source() const { return source_; }

  /// nullptr where the directory lacks the tag. @throws Error kBadHeader where it has it
  /// twice
  const TiffField* find(const TiffDirectory& directory, std::uint16_t tag) const;
  /// True for Hamamatsu's dialect.
  bool ndpi() const { return ndpi_; }
  /// The first value of a BYTE, SHORT, LONG or LONG8 tag. @throws Error kBadHeader
  /// otherwise
  std::optional<std::uint64_t> integer(const TiffDirectory& directory,
                                       std::uint16_t tag) const;
  /// The same, with SSHORT and SLONG. @throws Error kBadHeader otherwise
  std::optional<std::int64_t> signed_integer(const TiffDirectory& directory,
                                             std::uint16_t tag) const;
  /// All of at most `max_count` values. @throws Error kBadHeader, kLimitExceeded
  std::vector<std::uint64_t> integers(const TiffDirectory& directory, std::uint16_t tag,
                                      std::uint64_t max_count) const;
  /// A positive, finite RATIONAL, FLOAT or DOUBLE; anything else is absent.
  std::optional<double> number(const TiffDirectory& directory, std::uint16_t tag) const;
  /// ASCII up to its first NUL; at most `max_bytes` of it are read.
  std::string text(const TiffDirectory& directory, std::uint16_t tag,
                   std::size_t max_bytes) const;
  /// @throws Error kLimitExceeded above `max_bytes`
  std::vector<std::byte> bytes(const TiffDirectory& directory, std::uint16_t tag,
                               std::size_t max_bytes) const;

  /// An error of this file at a directory's tag.
  Error error(Code code, const TiffDirectory& directory, std::uint16_t tag,
              const std::string& what) const;

 private:
  std::uint64_t decode(const std::byte* bytes, std::size_t size) const;
  std::uint64_t read_integer(std::uint64_t offset, std::size_t size) const;
  /// Adds one directory; returns the offset of the next.
  std::uint64_t parse_directory(std::uint64_t offset, bool is_sub);
  void visit(std::uint64_t offset);

  std::shared_ptr<const ByteSource> source_;
  bool little_ = true;
  bool big_ = false;
  bool ndpi_ = false;
  std::size_t entries_ = 0;
  std::vector<std::uint64_t> visited_;
  std::vector<TiffDirectory> directories_;
};

}  // namespace her2fast::io
