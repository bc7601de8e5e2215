// SPDX-License-Identifier: Apache-2.0
#include "io/container/tiff_slide.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <span>

#include "io/byte_source.h"
#include "io/codec/decode_scratch.h"
#include "io/resample.h"

namespace her2fast::io {
namespace {

constexpr std::uint64_t kMaxSidePx = std::uint64_t{1} << 26;  // as SlideFrame::check
constexpr std::size_t kMaxJpegTableBytes = 64 << 10;

enum Compression : std::uint64_t {
  kNone = 1,
  kJpeg = 7,
  kAdobeDeflate = 8,
  kDeflate = 32946
};
enum Photometric : std::uint64_t { kRgb = 2, kYCbCr = 6 };

class TiffSlide final : public Slide, public HasIccProfile, public HasJpegTiles {
 public:
  TiffSlide(std::shared_ptr<const ByteSource> source, SlideInfo info,
            std::vector<TiledImage> images, std::optional<TiffField> icc)
      : source_(std::move(source)),
        info_(std::move(info)),
        images_(std::move(images)),
        icc_(icc) {}

  const SlideInfo& info() const override { return info_; }
  std::string fingerprint() const override { return fingerprint_of(*source_); }

  std::vector<std::byte> icc_profile() const override {
    if (!icc_) return {};
    std::vector<std::byte> profile(static_cast<std::size_t>(icc_->count));
    source_->read(icc_->position, profile.size(), profile.data());
    return profile;
  }

  std::optional<JpegTileFormat> jpeg_format(int level) const override {
    const TiledImage& image = images_.at(static_cast<std::size_t>(level));
    if (!is_jpeg(image)) return std::nullopt;
    return JpegTileFormat{image.codec == TiffCodec::kJpegRgb, image.jpeg_tables,
                          image.subsampling};
  }

  std::vector<std::byte> jpeg_bytes(int level, std::int64_t column,
                                    std::int64_t row) const override {
    const TiledImage& image = images_.at(static_cast<std::size_t>(level));
    const auto index = static_cast<std::size_t>(row * image.columns + column);
    if (image.offsets.at(index) == 0 || image.bytes[index] == 0) return {};
    std::vector<std::byte> bytes(image.bytes[index]);
    source_->read(image.offsets[index], bytes.size(), bytes.data());
    return bytes;
  }

  bool can_scale(int level, int denominator) const override {
    const TiledImage& image = images_.at(static_cast<std::size_t>(level));
    if (denominator == 1) return true;
    return is_jpeg(image) && is_denominator(denominator) &&
           image.tile_width_px % denominator == 0 &&
           image.tile_height_px % denominator == 0;
  }

  void expect_tile(int level, std::int64_t column, std::int64_t row) const override {
    const TiledImage& image = images_.at(static_cast<std::size_t>(level));
    if (column < 0 || row < 0 || column >= image.columns || row >= image.rows) return;
    const auto index = static_cast<std::size_t>(row * image.columns + column);
    if (image.bytes[index] > 0) source_->expect(image.offsets[index], image.bytes[index]);
  }

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override {
    const TiledImage& image = images_.at(static_cast<std::size_t>(level));
    if (column < 0 || row < 0 || column >= image.columns || row >= image.rows) {
      throw std::invalid_argument("need a tile of " + std::to_string(image.columns) +
                                  " x " + std::to_string(image.rows) + ", got column " +
                                  std::to_string(column) + ", row " +
                                  std::to_string(row));
    }
    if (!can_scale(level, denominator) || out.channels != 3 ||
        out.width != image.tile_width_px / denominator ||
        out.height != image.tile_height_px / denominator) {
      throw std::invalid_argument("need a view of one tile at a scale of `can_scale`");
    }
    const auto index = static_cast<std::size_t>(row * image.columns + column);
    const std::size_t bytes = image.bytes[index];
    if (bytes == 0 || image.offsets[index] == 0) {
      fill_white(out);
      return TileStatus::kMissing;
    }
    if (scratch.compressed.size() < bytes) scratch.compressed.resize(bytes);
    source_->read(image.offsets[index], bytes, scratch.compressed.data());
    const TileStatus status =
        decode(image, {scratch.compressed.data(), bytes}, denominator, out, scratch);
    if (status == TileStatus::kCorrupt) fill_white(out);
    return status;
  }

 private:
  static bool is_jpeg(const TiledImage& image) {
    return image.codec == TiffCodec::kJpegYCbCr || image.codec == TiffCodec::kJpegRgb;
  }

  static TileStatus decode(const TiledImage& image, std::span<const std::byte> bytes,
                           int denominator, ImageView<std::uint8_t> out,
                           DecodeScratch& scratch) {
    switch (image.codec) {
      case TiffCodec::kUncompressed:
        return decode_uncompressed(bytes, out);
      case TiffCodec::kDeflate:
        return scratch.inflate.decode(bytes, image.horizontal_difference, out);
      case TiffCodec::kJpegYCbCr:
      case TiffCodec::kJpegRgb:
        break;
    }
    return scratch.jpeg.decode(
        image.jpeg_tables, bytes,
        image.codec == TiffCodec::kJpegRgb ? JpegColor::kRgb : JpegColor::kYCbCr,
        image.tile_width_px, image.tile_height_px, denominator, out);
  }

  std::shared_ptr<const ByteSource> source_;
  SlideInfo info_;
  std::vector<TiledImage> images_;
  std::optional<TiffField> icc_;
};

std::uint64_t required(const TiffFile& tiff, const TiffDirectory& directory,
                       std::uint16_t tag) {
  const auto value = tiff.integer(directory, tag);
  if (!value) throw tiff.error(Code::kBadHeader, directory, tag, "is absent");
  return *value;
}

/// Of tags that no pixel depends on: one that stands twice counts as absent.
const TiffField* find_single(const TiffDirectory& directory, std::uint16_t tag) {
  const TiffField* found = nullptr;
  for (const TiffField& field : directory.fields) {
    if (field.tag != tag) continue;
    if (found != nullptr) return nullptr;
    found = &field;
  }
  return found;
}

bool fits(std::int64_t full, std::int64_t part, std::int64_t n) {
  return part == full / n || part == (full + n - 1) / n;
}

/// The whole number both axes agree on, or 0. Small levels fit several: a power of two
/// wins.
std::int64_t whole_downsample(const Level& full, const Level& part) {
  const double x =
      static_cast<double>(full.width_px) / static_cast<double>(part.width_px);
  const double y =
      static_cast<double>(full.height_px) / static_cast<double>(part.height_px);
  const auto power = std::int64_t{1}
                     << std::lround(std::log2(std::max(1.0, std::sqrt(x * y))));
  const std::int64_t near_x = std::llround(x), near_y = std::llround(y);
  // The longer axis states the ratio more exactly.
  const std::int64_t best = full.width_px >= full.height_px ? near_x : near_y;
  for (const std::int64_t n : {power, best, near_x, near_y}) {
    if (n >= 1 && fits(full.width_px, part.width_px, n) &&
        fits(full.height_px, part.height_px, n)) {
      return n;
    }
  }
  return 0;
}

}  // namespace

void fill_white(ImageView<std::uint8_t> out) {
  for (std::int64_t y = 0; y < out.height; ++y) {
    std::fill_n(out.row(y), out.width * out.channels, std::uint8_t{255});
  }
}

bool is_tiled(const TiffFile& tiff, const TiffDirectory& directory) {
  return tiff.find(directory, tag::kTileOffsets) != nullptr ||
         tiff.find(directory, tag::kTileWidth) != nullptr;
}

void check_extents(const TiffFile& tiff) {
  const std::uint64_t size = tiff.source()->size();
  std::uint64_t budget = 2 * kMaxTiles;
  for (const TiffDirectory& directory : tiff.directories()) {
    for (const auto& [offset_tag, count_tag] :
         {std::pair{tag::kTileOffsets, tag::kTileByteCounts},
          std::pair{tag::kStripOffsets, tag::kStripByteCounts}}) {
      const auto offsets =
          tiff.integers(directory, offset_tag, std::min(kMaxTiles, budget));
      const auto bytes = tiff.integers(directory, count_tag, std::min(kMaxTiles, budget));
      budget -= std::min<std::uint64_t>(budget, offsets.size());
      for (std::size_t i = 0; i < std::min(offsets.size(), bytes.size()); ++i) {
        if (bytes[i] == 0 || (offsets[i] <= size && bytes[i] <= size - offsets[i]))
          continue;
        throw tiff.error(Code::kTruncated, directory, offset_tag,
                         "tile " + std::to_string(i) + " of " + std::to_string(bytes[i]) +
                             " bytes at byte " + std::to_string(offsets[i]) +
                             " ends beyond the file of " + std::to_string(size) +
                             " bytes; copy it again from the scanner");
      }
    }
  }
}

std::optional<Error> pixel_obstacle(const TiffFile& tiff,
                                    const TiffDirectory& directory) {
  const auto pixels = [&](std::uint16_t tag, const std::string& what) {
    return tiff.error(Code::kUnsupportedPixels, directory, tag,
                      what + "; need interleaved 8-bit RGB: convert the slide");
  };
  const std::uint64_t samples =
      tiff.integer(directory, tag::kSamplesPerPixel).value_or(1);
  if (samples != 3) {
    return pixels(tag::kSamplesPerPixel,
                  "has " + std::to_string(samples) + " samples a pixel");
  }
  for (const std::uint64_t bits : tiff.integers(directory, tag::kBitsPerSample, 64)) {
    if (bits != 8) {
      return pixels(tag::kBitsPerSample,
                    "has " + std::to_string(bits) + " bits a sample");
    }
  }
  if (tiff.find(directory, tag::kBitsPerSample) == nullptr) {
    return pixels(tag::kBitsPerSample, "is absent, which means 1 bit a sample");
  }
  for (const std::uint64_t format : tiff.integers(directory, tag::kSampleFormat, 64)) {
    if (format != 1) return pixels(tag::kSampleFormat, "holds no unsigned integers");
  }
  if (tiff.integer(directory, tag::kPlanarConfig).value_or(1) != 1) {
    return pixels(tag::kPlanarConfig, "says separate planes");
  }
  const std::uint64_t compression =
      tiff.integer(directory, tag::kCompression).value_or(kNone);
  const std::uint64_t photometric = required(tiff, directory, tag::kPhotometric);
  if (compression != kNone && compression != kJpeg && compression != kAdobeDeflate &&
      compression != kDeflate) {
    return tiff.error(Code::kUnsupportedFormat, directory, tag::kCompression,
                      "compression " + std::to_string(compression) + " is not read here");
  }
  if (photometric != kRgb && !(photometric == kYCbCr && compression == kJpeg)) {
    return pixels(tag::kPhotometric, "has photometric " + std::to_string(photometric));
  }
  if (compression == kAdobeDeflate || compression == kDeflate) {
    const std::uint64_t predictor = tiff.integer(directory, tag::kPredictor).value_or(1);
    if (predictor != 1 && predictor != 2) {
      return pixels(tag::kPredictor, "has predictor " + std::to_string(predictor));
    }
  }
  return std::nullopt;
}

std::pair<std::int64_t, std::int64_t> image_size(const TiffFile& tiff,
                                                 const TiffDirectory& directory) {
  std::uint64_t sides[2];
  std::size_t i = 0;
  for (const std::uint16_t side : {tag::kImageWidth, tag::kImageLength}) {
    const std::uint64_t value = required(tiff, directory, side);
    if (value == 0) throw tiff.error(Code::kBadHeader, directory, side, "is 0");
    if (value > kMaxSidePx) {
      throw tiff.error(Code::kLimitExceeded, directory, side,
                       "need at most " + std::to_string(kMaxSidePx) + " px, got " +
                           std::to_string(value));
    }
    sides[i++] = value;
  }
  return {static_cast<std::int64_t>(sides[0]), static_cast<std::int64_t>(sides[1])};
}

TiledImage load_tiled(const TiffFile& tiff, const TiffDirectory& directory) {
  TiledImage image;
  image.directory = directory.index;
  std::tie(image.width_px, image.height_px) = image_size(tiff, directory);
  const std::uint64_t width = required(tiff, directory, tag::kTileWidth);
  const std::uint64_t height = required(tiff, directory, tag::kTileLength);
  if (width == 0 || height == 0) {
    throw tiff.error(Code::kBadHeader, directory, tag::kTileWidth, "a tile side is 0");
  }
  if (width > kMaxTileSidePx || height > kMaxTileSidePx || width * height > kMaxTilePx) {
    throw tiff.error(Code::kLimitExceeded, directory, tag::kTileWidth,
                     "tiles of " + std::to_string(width) + " x " +
                         std::to_string(height) + " px are larger than any scanner's");
  }
  image.tile_width_px = static_cast<std::int32_t>(width);
  image.tile_height_px = static_cast<std::int32_t>(height);
  image.columns = (image.width_px + image.tile_width_px - 1) / image.tile_width_px;
  image.rows = (image.height_px + image.tile_height_px - 1) / image.tile_height_px;
  // Both factors are at most 2^26.
  const auto tiles = static_cast<std::uint64_t>(image.columns * image.rows);
  if (tiles > kMaxTiles) {
    throw tiff.error(Code::kLimitExceeded, directory, tag::kTileOffsets,
                     "needs " + std::to_string(tiles) + " tiles, more than " +
                         std::to_string(kMaxTiles));
  }
  const std::uint64_t compression =
      tiff.integer(directory, tag::kCompression).value_or(kNone);
  if (compression == kJpeg) {
    image.codec = required(tiff, directory, tag::kPhotometric) == kYCbCr
                      ? TiffCodec::kJpegYCbCr
                      : TiffCodec::kJpegRgb;
    image.jpeg_tables = tiff.bytes(directory, tag::kJpegTables, kMaxJpegTableBytes);
    // The decoder goes by the stream; a copy of the tiles takes the tag along.
    const TiffField* subsampling = find_single(directory, tag::kYCbCrSubSampling);
    if (subsampling != nullptr && subsampling->type == 3 && subsampling->count == 2) {
      image.subsampling = tiff.integers(directory, tag::kYCbCrSubSampling, 2);
    }
  } else if (compression == kAdobeDeflate || compression == kDeflate) {
    image.codec = TiffCodec::kDeflate;
    image.horizontal_difference =
        tiff.integer(directory, tag::kPredictor).value_or(1) == 2;
  }
  image.offsets = tiff.integers(directory, tag::kTileOffsets, kMaxTiles);
  const auto counts = tiff.integers(directory, tag::kTileByteCounts, kMaxTiles);
  if (image.offsets.size() != tiles || counts.size() != tiles) {
    throw tiff.error(Code::kBadHeader, directory, tag::kTileOffsets,
                     "need " + std::to_string(tiles) + " tiles, got " +
                         std::to_string(image.offsets.size()) + " offsets and " +
                         std::to_string(counts.size()) + " sizes");
  }
  const std::uint64_t max_bytes = max_jpeg_bytes(width * height);
  image.bytes.reserve(counts.size());
  for (const std::uint64_t count : counts) {
    if (count > max_bytes) {
      throw tiff.error(Code::kLimitExceeded, directory, tag::kTileByteCounts,
                       "a tile of " + std::to_string(count) + " bytes for " +
                           std::to_string(width) + " x " + std::to_string(height) +
                           " px");
    }
    image.bytes.push_back(static_cast<std::uint32_t>(count));
  }
  return image;
}

void set_resolution_spacing(const TiffFile& tiff, const TiffDirectory& directory,
                            SlideInfo& info) {
  const std::uint64_t unit = tiff.integer(directory, tag::kResolutionUnit).value_or(2);
  const double unit_um = unit == 2 ? 25400.0 : unit == 3 ? 10000.0 : 0.0;
  const auto x = tiff.number(directory, tag::kXResolution);
  const auto y = tiff.number(directory, tag::kYResolution);
  if (unit_um == 0.0 || !x || !y) return;
  // Absurd values stay absurd but representable: they end as BAD_SPACING, not as none.
  info.spacing_x = Spacing::from_um(std::clamp(unit_um / *x, 1e-6, 1e6));
  info.spacing_y = Spacing::from_um(std::clamp(unit_um / *y, 1e-6, 1e6));
  info.spacing_source = SpacingSource::kTiffResolution;
}

void set_downsamples(std::vector<Level>& levels) {
  const Level full = levels.front();
  for (Level& level : levels) {
    const std::int64_t whole = whole_downsample(full, level);
    level.down_x_num = whole > 0 ? whole : full.width_px;
    level.down_x_den = whole > 0 ? 1 : level.width_px;
    level.down_y_num = whole > 0 ? whole : full.height_px;
    level.down_y_den = whole > 0 ? 1 : level.height_px;
  }
}

std::shared_ptr<const Slide> make_tiff_slide(const TiffFile& tiff, SlideInfo info,
                                             std::vector<TiledImage> images) {
  info.reader = "native";
  info.levels.clear();
  for (const TiledImage& image : images) {
    Level level;
    level.width_px = image.width_px;
    level.height_px = image.height_px;
    level.tile_width_px = image.tile_width_px;
    level.tile_height_px = image.tile_height_px;
    info.levels.push_back(level);
  }
  set_downsamples(info.levels);
  const TiffField* profile =
      find_single(tiff.directories()[images.front().directory], tag::kIccProfile);
  std::optional<TiffField> icc;
  // BYTE or UNDEFINED, and too long to stand in its entry; others are no profile.
  if (profile != nullptr && (profile->type == 1 || profile->type == 7) &&
      profile->count > 8 && profile->count <= kMaxIccBytes) {
    icc = *profile;
  }
  return std::make_shared<TiffSlide>(tiff.source(), std::move(info), std::move(images),
                                     icc);
}

}  // namespace her2fast::io
